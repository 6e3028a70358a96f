package egress

import (
	"fmt"
	"net/netip"
)

// addressError is an address that the policy does not allow.
type addressError struct {
	host string
	addr netip.Addr
	why  string
}

func (e *addressError) Error() string {
	return fmt.Sprintf("%s is at %s, which is %s", e.host, e.addr, e.why)
}

// checkAddress decides whether a connection to addr, which host resolved to or
// which it is, may be made.
func (c *Client) checkAddress(host string, addr netip.Addr) error {
	addr = addr.Unmap()
	why, never := special(addr)
	if why == "" {
		return nil
	}
	if !never {
		for _, r := range c.rules {
			// The operator wrote this very address.
			if r.addr == addr && r.host == host {
				return nil
			}
		}
		for _, prefix := range c.p.Private {
			if prefix.Contains(addr) {
				return nil
			}
		}
		why += "; grant its range as private if that is meant"
	}
	return &addressError{host, addr, why}
}

type specialRange struct {
	prefix netip.Prefix
	what   string
	// never is set for what no TCP connection has to go to.
	never bool
}

// ranges are the entries of the IANA special-purpose address registries (RFC
// 6890 and later) that are not plain global unicast, the more specific first.
// Of IPv6 only 2000::/3 is global unicast at all.
var ranges = func() (r []specialRange) {
	for _, e := range []struct {
		cidr, what string
		never      bool
	}{
		{"0.0.0.0/32", "unspecified", true},
		{"0.0.0.0/8", "this network", true},
		{"10.0.0.0/8", "private", false},
		{"100.64.0.0/10", "shared address space", false},
		{"127.0.0.0/8", "loopback", false},
		{"169.254.0.0/16", "link-local", false},
		{"172.16.0.0/12", "private", false},
		{"192.0.0.0/24", "reserved for protocols", false},
		{"192.0.2.0/24", "for documentation", false},
		{"192.88.99.0/24", "a 6to4 relay", false},
		{"192.168.0.0/16", "private", false},
		{"198.18.0.0/15", "for benchmarks", false},
		{"198.51.100.0/24", "for documentation", false},
		{"203.0.113.0/24", "for documentation", false},
		{"224.0.0.0/4", "multicast", true},
		{"255.255.255.255/32", "broadcast", true},
		{"240.0.0.0/4", "reserved", false},
		{"::/128", "unspecified", true},
		{"::1/128", "loopback", false},
		{"::/96", "an IPv4 address in IPv6", true},
		{"ff00::/8", "multicast", true},
		{"fe80::/10", "link-local", false},
		{"fec0::/10", "site-local", false},
		{"fc00::/7", "private", false},
		{"64:ff9b:1::/48", "local NAT64", false},
		{"100::/64", "a black hole", false},
		{"2001:db8::/32", "for documentation", false},
		{"2001::/32", "Teredo, which holds another address", false},
		{"2001::/23", "reserved for protocols", false},
		{"2002::/16", "6to4, which holds another address", false},
		{"3fff::/20", "for documentation", false},
	} {
		r = append(r, specialRange{netip.MustParsePrefix(e.cidr), e.what, e.never})
	}
	return r
}()

var (
	nat64         = netip.MustParsePrefix("64:ff9b::/96")
	globalUnicast = netip.MustParsePrefix("2000::/3")
)

// special says what an address is that is not public, and whether no grant
// helps. An IPv4 address inside an IPv6 one counts as itself where the network
// would unpack it: NAT64 with the well-known prefix (RFC 6052) and ISATAP (RFC
// 5214). A network's own NAT64 prefix cannot be known.
func special(a netip.Addr) (what string, never bool) {
	if a.Zone() != "" {
		return "in a zone", true
	}
	for _, r := range ranges {
		if r.prefix.Contains(a) {
			return r.what, r.never
		}
	}
	if a.Is4() {
		return "", false
	}
	b := a.As16()
	inner := netip.AddrFrom4([4]byte(b[12:]))
	if nat64.Contains(a) {
		if what, never = special(inner); what != "" {
			what = fmt.Sprintf("NAT64 for %s, %s", inner, what)
		}
		return what, never
	}
	if !globalUnicast.Contains(a) {
		return "not global unicast", false
	}
	if b[8]&^3 == 0 && b[9] == 0 && b[10] == 0x5e && b[11] == 0xfe {
		if what, never = special(inner); what != "" {
			what = fmt.Sprintf("ISATAP for %s, %s", inner, what)
		}
	}
	return what, never
}
