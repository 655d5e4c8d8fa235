#!/bin/sh
# Build the programs of other projects that tests and benchmarks drive into build/peers/bin, at
# the versions that the go.mod files here name.  Whatever was built from the same go.sum stays.
set -eu
cd "$(dirname "$0")"
bin=$(cd ../.. && pwd)/build/peers/bin
mkdir -p "$bin"

# Newest requirement of the modules below; the language alone decides, not the patch release.
require_go() {
    version=$(go env GOVERSION 2> /dev/null) || version=none
    minor=$(printf '%s' "$version" | sed -n 's/^go1\.\([0-9]*\).*/\1/p')
    [ "${minor:-0}" -ge 24 ] && return
    echo "peers: Go 1.24 or newer is needed for the tests' programs (found: $version)." >&2
    echo "peers: Debian 13 has it (apt install golang-go); on Debian 12 install it from" >&2
    echo "peers: bookworm-backports or from the Go project.  isthmus itself needs no Go." >&2
    exit 1
}

# build MODULE PACKAGES...: programs named for the last element of each package's path.
build() {
    module=$1
    shift
    stamp=$bin/.$module
    wanted=$(cat "$module"/go.* "$module"/*.go build.sh | sha256sum)
    [ "$(cat "$stamp" 2> /dev/null)" = "$wanted" ] && return
    require_go
    echo "==> building $# programs of tools/peers/$module (a minute or two when Go's cache is empty)"
    began=$(date +%s)
    (cd "$module" && GOFLAGS=-mod=readonly GOTOOLCHAIN=local CGO_ENABLED=0 go build -trimpath \
        -ldflags '-s -w' -tags no_btrfs,no_zfs,no_devmapper,no_aufs -o "$bin/" "$@")
    printf '%s\n' "$wanted" > "$stamp"
    echo "    $module built in $(($(date +%s) - began)) s"
}

plugins=github.com/containernetworking/plugins/plugins
build cni github.com/containernetworking/cni/cnitool \
    $plugins/main/bridge $plugins/main/loopback $plugins/main/macvlan $plugins/main/ptp \
    $plugins/ipam/dhcp $plugins/ipam/host-local $plugins/ipam/static \
    $plugins/meta/bandwidth $plugins/meta/firewall $plugins/meta/portmap $plugins/meta/tuning
build cri-client .
containerd=github.com/containerd/containerd/v2/cmd
build containerd $containerd/containerd $containerd/containerd-shim-runc-v2 $containerd/ctr
# Restores with a raised revision, which Debian 12's etcd cannot.  Its package is named `server`.
etcd=go.etcd.io/etcd
build etcd $etcd/etcdctl/v3 $etcd/etcdutl/v3 $etcd/server/v3
[ ! -e "$bin/server" ] || mv "$bin/server" "$bin/etcd"
