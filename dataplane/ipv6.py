"""IPv6 settings of interfaces that are ours: they go with the interface, so none is recorded."""

from contextlib import suppress

from dataplane.sysctl import SysctlRefused, Sysctls


def allow(ifname: str, sysctls: Sysctls | None = None) -> None:
    """Make *ifname*, in the namespace of this thread, take and keep IPv6 addresses.

    A fresh sandbox may have IPv6 switched off, and a link that is set down (as `tuning` does)
    would lose its addresses.  Raises SysctlRefused where it is off and has to stay so.
    """
    sysctls = sysctls or Sysctls()
    sysctls.ensure(f"net/ipv6/conf/{ifname}/disable_ipv6", "0")
    with suppress(SysctlRefused):
        sysctls.ensure(f"net/ipv6/conf/{ifname}/keep_addr_on_down", "1")


def refuse_router_advertisements(ifname: str, sysctls: Sysctls | None = None) -> None:
    """Let no pod become the host's router by advertising itself on *ifname*.

    Where /proc/sys is read-only this is left to forwarding, which has the same effect.
    """
    with suppress(SysctlRefused):
        (sysctls or Sysctls()).ensure(f"net/ipv6/conf/{ifname}/accept_ra", "0")
