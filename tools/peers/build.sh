#!/bin/sh
# Build the programs of other projects that tests and benchmarks drive into build/peers/bin, at
# the versions that the go.mod files here name.  Whatever was built from the same go.sum stays.
#
#   tools/peers/build.sh FAMILIES...
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

# build PACKAGES... of $module, unless done: programs named for the last element of each's path.
build() {
    stamp=$bin/.$family
    wanted=$(printf '%s\n' "$verb" "$tags" "$ldflags" "$@" |
        cat - "$module"/go.* $(find "$module" -name '*.go' | sort) | sha256sum)
    [ "$(cat "$stamp" 2> /dev/null)" = "$wanted" ] && return
    require_go
    echo "==> building $# programs of tools/peers/$module (minutes when Go's cache is empty)"
    began=$(date +%s)
    (cd "$module" && GOFLAGS=-mod=readonly GOTOOLCHAIN=local CGO_ENABLED=0 \
        go $verb -trimpath -ldflags "$ldflags" -tags "$tags" -o "$output" "$@")
    printf '%s\n' "$wanted" > "$stamp"
    echo "    $family built in $(($(date +%s) - began)) s"
}

# prefix P PACKAGES...: each package's path with P before it.
prefix() {
    for package in $(shift; echo "$@"); do echo "$1/$package"; done
}

# Programs of Kubernetes built from its module do not know their version, which they compare.
know_version() {
    version=$(sed -n 's/.*k8s.io\/kubernetes \(v[0-9.]*\).*/\1/p' kubernetes/go.mod | head -n 1)
    minor=${version#v1.}
    names=k8s.io/component-base/version
    ldflags="$ldflags -X $names.gitVersion=$version -X $names.gitMajor=1"
    ldflags="$ldflags -X $names.gitMinor=${minor%%.*}"
    ldflags="$ldflags -X k8s.io/client-go/pkg/version.gitVersion=$version"
}

for family in "$@"; do
    ldflags='-s -w'
    tags=
    module=$family
    verb=build
    output=$bin/
    # shellcheck disable=SC2046 # lists of names
    case $family in
    cni)
        build github.com/containernetworking/cni/cnitool \
            $(prefix github.com/containernetworking/plugins/plugins \
                main/bridge main/loopback main/macvlan main/ptp ipam/dhcp ipam/host-local \
                ipam/static meta/bandwidth meta/firewall meta/portmap meta/tuning)
        ;;
    cri-client) build . ;;
    containerd)
        tags=no_btrfs,no_zfs,no_devmapper,no_aufs
        build $(prefix github.com/containerd/containerd/v2/cmd \
            containerd containerd-shim-runc-v2 ctr)
        ;;
    etcd)
        # Restores with a raised revision, which Debian 12's cannot.  Its package is named `server`.
        build $(prefix go.etcd.io/etcd etcdctl/v3 etcdutl/v3 server/v3)
        [ ! -e "$bin/server" ] || mv "$bin/server" "$bin/etcd"
        ;;
    kubernetes)
        know_version
        build $(prefix k8s.io/kubernetes cmd/kube-apiserver \
            cmd/kube-controller-manager cmd/kube-proxy cmd/kube-scheduler cmd/kubeadm cmd/kubectl \
            cmd/kubelet test/images/agnhost)
        ;;
    e2e) # the network's specs alone
        module=kubernetes verb='test -c' output=$bin/e2e.test
        know_version
        build ./e2e
        ;;
    ginkgo) # runs them in parallel
        module=kubernetes
        build github.com/onsi/ginkgo/v2/ginkgo
        ;;
    boom) # sends what conntrack calls invalid, for one of the network's specs
        module=kubernetes
        build k8s.io/kubernetes/test/images/regression-issue-74839
        ;;
    kind) build sigs.k8s.io/kind ;;
    coredns) build github.com/coredns/coredns ;;
    *)
        echo "peers: no family $family; modules are:" */ >&2
        exit 1
        ;;
    esac
done
