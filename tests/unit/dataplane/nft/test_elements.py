from ipaddress import ip_address, ip_network

from hypothesis import given
from hypothesis import strategies as st

from cni.tables import HAIRPIN, HOST_PORT, MASQUERADED, PERMITTED
from dataplane.netlink import attributes, each_attribute
from dataplane.nft.elements import DELETE_ELEMENT, NEW_ELEMENT, decode, messages
from dataplane.nft.objects import Element, Family, Kind, NamedSet, Protocol, element

LIST = 3


def members(message: bytes) -> list[dict[int, bytes]]:
    found = attributes(message, 20)[LIST]
    return [attributes(member) for _, member in each_attribute(found)]


def test_an_addition_is_what_nft_itself_sends() -> None:
    """Seen with strace: nft add element bridge t permitted { "veth1" . 02:00:00:00:00:01 … }."""
    added = element(PERMITTED, ("veth1", "02:00:00:00:00:01"), comment="ab")
    (message,) = messages([(NEW_ELEMENT, added)])

    assert message.endswith(
        bytes.fromhex(
            "34000380 30000180 20000180 1c000100"
            "76657468310000000000000000000000 0200000000010000"
            "09000600 0003616200 000000"
        )
    )


def test_only_the_last_message_asks_for_an_answer() -> None:
    many = [
        element(MASQUERADED[4], [ip_address(number)]) for number in range(1 << 24, (1 << 24) + 450)
    ]
    made = list(messages([(NEW_ELEMENT, each) for each in many]))

    assert [int.from_bytes(message[6:8], "little") & 4 for message in made] == [0, 0, 4]
    assert [len(members(message)) for message in made] == [200, 200, 50]


def test_a_deletion_names_key_and_end_alone() -> None:
    gone = element(HAIRPIN[4], (ip_network("10.0.0.0/8"), ip_address("10.0.0.1")), comment="x")
    (message,) = messages([(DELETE_ELEMENT, gone)])

    assert [set(member) for member in members(message)] == [{1, 10}]


ports = st.integers(0, 65535)
comments = st.text(st.characters(min_codepoint=32, max_codepoint=126), max_size=40)
elements = st.one_of(
    st.builds(
        lambda host, port, pod, target, comment: element(
            HOST_PORT[4], (host, Protocol.UDP, port), (pod, target), comment=comment
        ),
        st.ip_addresses(v=4),
        ports,
        st.ip_addresses(v=4),
        ports,
        comments,
    ),
    st.builds(lambda ip, to: element(HAIRPIN[6], (ip, to)), *[st.ip_addresses(v=6)] * 2),
)


@given(elements)
def test_what_is_sent_is_read_back_the_same(each: Element) -> None:
    (message,) = messages([(NEW_ELEMENT, each)])
    (member,) = members(message)

    assert decode(each.of, member) == each


def test_an_interval_of_one_field_is_two_bounds_and_the_last_has_none_above() -> None:
    tree = NamedSet(Family.IP, "t", "pods", (Kind.ADDRESS4,), interval=True)
    nets = [element(tree, [ip_network(each)]) for each in ("10.0.0.0/24", "255.255.255.0/24")]
    (sent,) = messages([(NEW_ELEMENT, each) for each in nets])

    listed = each_attribute(attributes(sent, 20)[3])
    keys = [attributes(attributes(each)[1])[1] for _, each in listed]
    assert [str(ip_address(key)) for key in keys] == ["10.0.0.0", "10.0.1.0", "255.255.255.0"]
