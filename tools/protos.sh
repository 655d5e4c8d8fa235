#!/bin/sh
# Write ipam/rpc/ anew from ipam/ipamd.proto.
#
#   tools/protos.sh [DIRECTORY]     below which ipam/rpc/ is written; here, if none is given
set -eu
cd "$(dirname "$0")/.."

# Seen by protoc as ipam/rpc/ipamd.proto: that is where the generated modules import each other.
.venv/bin/python -m grpc_tools.protoc -Iipam/rpc=ipam \
    --python_out="${1:-.}" --pyi_out="${1:-.}" --grpc_python_out="${1:-.}" ipam/rpc/ipamd.proto
