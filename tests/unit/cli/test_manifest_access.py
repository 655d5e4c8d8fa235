"""Who may ask the API server for what."""

from typing import Any

from cli.manifest_access import CA, access

OBJECTS = access()


def rules(kind: str, name: str) -> list[dict[str, Any]]:
    [found] = [one for one in OBJECTS if (one["kind"], one["metadata"]["name"]) == (kind, name)]
    return list(found["rules"])


def test_nobody_may_do_everything_with_anything() -> None:
    every = [rule for one in OBJECTS for rule in one.get("rules", ())]

    assert every
    assert not [rule for rule in every if "*" in rule["verbs"] + rule["resources"]]


def test_only_the_job_that_makes_the_authority_reads_secrets_and_only_that_one() -> None:
    secrets = {
        (one["kind"], one["metadata"]["name"], tuple(rule["verbs"]), *rule.get("resourceNames", ()))
        for one in OBJECTS
        for rule in one.get("rules", ())
        if "secrets" in rule["resources"]
    }

    assert secrets == {
        ("Role", "isthmus-begin", ("create",)),
        ("Role", "isthmus-begin", ("get",), CA),
    }


def test_an_agent_changes_nodes_and_tells_events_and_nothing_else() -> None:
    writing = {
        (resource, verb)
        for rule in rules("ClusterRole", "isthmus-agent") + rules("Role", "isthmus-agent")
        for resource in rule["resources"]
        for verb in rule["verbs"]
        if verb not in ("get", "list", "watch")
    }

    assert writing == {
        ("nodes", "patch"),
        ("nodes/status", "patch"),
        ("events", "create"),
        ("events", "patch"),
    }


def test_every_role_is_bound_to_the_account_of_its_name() -> None:
    roles = {(o["kind"], o["metadata"]["name"]) for o in OBJECTS if "rules" in o}
    bound = {
        (o["roleRef"]["kind"], o["roleRef"]["name"])
        for o in OBJECTS
        if "roleRef" in o and o["subjects"][0]["name"] == o["roleRef"]["name"]
    }

    assert roles == bound


def test_the_policy_of_admission_can_be_left_out_for_a_server_without_such() -> None:
    named = {one["kind"] for one in OBJECTS} - {one["kind"] for one in access(policy=False)}

    assert named == {"ValidatingAdmissionPolicy", "ValidatingAdmissionPolicyBinding"}
