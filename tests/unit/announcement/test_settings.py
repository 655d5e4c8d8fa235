from announcement.settings import Settings


def test_without_a_word_links_are_found_and_the_port_is_the_same_everywhere() -> None:
    assert Settings() == Settings(interfaces=(), port=9479)
