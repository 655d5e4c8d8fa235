from proxy.model import ServiceName


def test_services_are_named_as_kubectl_names_them_and_sort_by_namespace() -> None:
    names = [ServiceName("b", "a"), ServiceName("a", "z")]

    assert list(map(str, sorted(names))) == ["a/z", "b/a"]
