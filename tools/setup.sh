#!/bin/sh
# Prepare a Debian machine (12 or newer, as root) for a target of the Makefile.
#
#   tools/setup.sh demo     what the program itself needs
#   tools/setup.sh cluster  also etcd
#   tools/setup.sh engine   a container engine
#   tools/setup.sh kind     what makes a Kubernetes cluster from nothing
#   tools/setup.sh e2e      also Kubernetes' end-to-end tests of the network
#   tools/setup.sh test     also the runtimes and test programs that the tests drive
#
# Does only what is missing, so that a second run takes a fraction of a second.  Writes to the
# system through apt alone; the rest is .venv/ and build/.
set -eu
cd "$(dirname "$0")/.."

# What sanitizers and fuzzers are linked with has clang's version in its name.
clang_runtime='libclang-rt-*-dev'
for_demo="gcc iproute2 iputils-ping make musl-tools nftables openssl python3 python3-venv"
for_cluster="etcd-server"
for_kind="docker.io iproute2 mmdebstrap musl-tools util-linux"
for_test="$for_cluster busybox-static clang $clang_runtime conntrack containernetworking-plugins
    etcd-client iptables podman procps runc socat strace tcpdump util-linux"

say() { printf '==> %s\n' "$*"; }
die() { printf 'setup: %s\n' "$*" >&2; exit 1; }

missing_of() {
    for package in "$@"; do
        # shellcheck disable=SC2254 # names may be patterns
        case "$installed" in *" "$package" "*) ;; *) printf '%s ' "$package" ;; esac
    done
}

# apt would start what it installs; nothing here needs a service of the machine's.
without_services() {
    if [ -e /usr/sbin/policy-rc.d ]; then "$@"; return; fi
    printf '#!/bin/sh\nexit 101\n' > /usr/sbin/policy-rc.d
    chmod 755 /usr/sbin/policy-rc.d
    trap 'rm -f /usr/sbin/policy-rc.d' EXIT
    "$@"
    rm -f /usr/sbin/policy-rc.d
    trap - EXIT
}

debian_packages() {
    command -v dpkg-query > /dev/null ||
        die "not a Debian system: install these yourself, then make .venv: $*"
    # shellcheck disable=SC2016 # the ${} is dpkg-query's
    installed=" $(dpkg-query -W -f='${db:Status-Abbrev} ${Package}\n' |
        sed -n 's/^ii *//p' | tr '\n' ' ') "
    missing=$(missing_of "$@")
    [ -n "$missing" ] || return 0
    [ "$(id -u)" = 0 ] || die "these packages are missing, and only root can install them: $missing"
    say "Debian packages: $missing"
    apt-get -qq update
    version=$(apt-cache depends clang | sed -n 's/.*Depends: clang-\([0-9]*\)$/\1/p')
    missing=$(printf '%s' "$missing" | sed "s/libclang-rt-[*]-dev/libclang-rt-$version-dev/")
    # shellcheck disable=SC2086 # a list of names
    DEBIAN_FRONTEND=noninteractive without_services \
        apt-get -qq -o Dpkg::Use-Pty=0 -y --no-install-recommends install $missing > build/apt.log ||
        die "apt-get failed; its output is in build/apt.log"
}

# Debian's own first: others are often built without what the standalone program is made from.
find_python() {
    for python in /usr/bin/python3 python3 python3.13 python3.12 python3.11; do
        if "$python" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2> /dev/null; then
            echo "$python"
            return
        fi
    done
    die "Python 3.11 or newer is needed (Debian 12 has it); $(python3 --version 2>&1) is not"
}

python_packages() {
    wanted=$(sha256sum requirements.lock)
    [ "$(cat .venv/lock.sha256 2> /dev/null)" = "$wanted" ] && return
    say "Python packages in .venv, as pinned by requirements.lock (about a minute)"
    [ -x .venv/bin/python ] || "$(find_python)" -m venv .venv
    .venv/bin/python -m pip --disable-pip-version-check install --quiet --require-hashes \
        --requirement requirements.lock
    printf '%s\n' "$wanted" > .venv/lock.sha256
}

set -f # names of packages may be patterns, of no file
mkdir -p build
case "${1:-}" in
demo) packages=$for_demo ;;
cluster) packages="$for_demo $for_cluster" ;;
engine | kind | e2e) packages="$for_demo $for_kind" ;;
test) packages="$for_demo $for_test" ;;
*) die "usage: tools/setup.sh demo|cluster|engine|kind|e2e|test" ;;
esac
# shellcheck disable=SC2086 # a list of names
debian_packages $packages
python_packages
case $1 in
kind) tools/peers/build.sh kind kubernetes boom coredns etcd containerd cni ;;
e2e) tools/peers/build.sh kind kubernetes boom coredns etcd containerd cni e2e ginkgo ;;
test) tools/peers/build.sh cni cri-client containerd etcd kubernetes ;;
esac
