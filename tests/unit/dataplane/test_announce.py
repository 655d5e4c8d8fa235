import struct
from ipaddress import ip_address

from dataplane.announce import frame

MAC = bytes.fromhex("020000000005")


def ones_complement_sum(data: bytes) -> int:
    total = sum(struct.unpack(f">{len(data) // 2}H", data))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return int(total)


def test_ipv4_is_announced_by_a_gratuitous_arp_request() -> None:
    assert frame(MAC, ip_address("10.0.0.2")) == bytes.fromhex(
        "ffffffffffff 020000000005 0806"
        "0001 0800 06 04 0001"
        "020000000005 0a000002"
        "000000000000 0a000002"
    )


def test_ipv6_is_announced_by_an_advertisement_to_all_nodes() -> None:
    address = ip_address("fd00::2")
    made = frame(MAC, address)
    header, message = made[14:54], made[54:]

    assert made[:14] == bytes.fromhex("333300000001 020000000005 86dd")
    assert header[:8] == bytes.fromhex("60000000 0020 3a ff")
    assert header[8:] == address.packed + ip_address("ff02::1").packed
    assert message[:2] == b"\x88\0"
    assert message[4:8] == bytes.fromhex("20000000")  # override; neither router nor solicited
    assert message[8:] == address.packed + bytes.fromhex("0201") + MAC


def test_the_advertisement_has_a_right_checksum() -> None:
    made = frame(MAC, ip_address("fd00::dead:beef"))
    pseudo = made[22:54] + struct.pack(">II", len(made) - 54, 58)

    assert ones_complement_sum(pseudo + made[54:]) == 0xFFFF
