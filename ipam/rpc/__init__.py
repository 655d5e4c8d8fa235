"""Generated from ipam/ipamd.proto by tools/protos.sh; not edited."""
