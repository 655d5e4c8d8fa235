# The image, for those with a container engine and a registry; without them: make image.
#
#   docker build -t registry.example.com/isthmus:0.1.0 .
#
# The first stage freezes the program and lays out the image's file system by the same
# tools/image.py; the second one is that file system and nothing else.
FROM debian:12-slim AS build
RUN apt-get update && apt-get install -y --no-install-recommends \
        binutils gcc git iproute2 iputils-ping libc6-dev make musl-tools nftables openssl \
        python3 python3-venv
WORKDIR /src
COPY . .
RUN tools/setup.sh demo && make launcher && tools/dist.sh && \
    .venv/bin/python tools/image.py --unpacked /image

FROM scratch
COPY --from=build /image /
ENV PATH=/usr/sbin:/usr/bin MALLOC_ARENA_MAX=1
ENTRYPOINT ["/opt/isthmus/isthmus"]
