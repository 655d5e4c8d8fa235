"""The CNI protocol and its verbs, run by the agent and by the standalone program."""
