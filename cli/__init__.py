"""The isthmus command line; also the multi-call entry of the standalone program."""
