package egress

import (
	"context"
	"encoding/binary"
	"net"
	"net/http"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
)

func TestAddressClasses(t *testing.T) {
	c := newClient(t, Policy{Hosts: []HostRule{{Host: "collector.example", Methods: []string{"GET"}}}})
	for addr, want := range map[string]string{
		// public
		"8.8.8.8": "", "93.184.216.34": "", "172.15.255.255": "", "172.32.0.0": "", "100.63.255.255": "", "100.128.0.0": "",
		"169.253.255.255": "", "192.167.255.255": "", "198.17.0.0": "", "223.255.255.255": "", "11.0.0.0": "", "126.0.0.1": "", "128.0.0.1": "",
		"2606:4700::1111": "", "2a00:1450::1": "", "2001:4860:4860::8888": "", "2001:200::1": "", "::ffff:8.8.8.8": "",
		"64:ff9b::8.8.8.8": "", "2606::5efe:808:808": "",
		// IPv4
		"0.0.0.0": "unspecified", "0.1.2.3": "this network", "10.0.0.1": "private", "10.255.255.255": "private",
		"100.64.0.1": "shared", "100.127.255.255": "shared", "127.0.0.1": "loopback", "127.255.255.254": "loopback",
		"169.254.169.254": "link-local", "172.16.0.1": "private", "172.31.255.255": "private", "192.0.0.1": "reserved",
		"192.0.2.1": "documentation", "192.88.99.1": "6to4", "192.168.1.1": "private", "198.18.0.1": "benchmarks", "198.19.255.255": "benchmarks",
		"198.51.100.7": "documentation", "203.0.113.9": "documentation", "224.0.0.1": "multicast", "239.255.255.255": "multicast",
		"240.0.0.1": "reserved", "255.255.255.255": "broadcast",
		// IPv6
		"::": "unspecified", "::1": "loopback", "fe80::1": "link-local", "fe80::1%eth0": "zone", "febf::1": "link-local", "fec0::1": "site-local",
		"fc00::1": "private", "fd00:ec2::254": "private", "ff02::1": "multicast", "2001:db8::1": "documentation", "3fff::1": "documentation",
		"100::1": "black hole", "4000::1": "not global unicast", "1000::1": "not global unicast", "5f00::1": "not global unicast", "2001:2::1": "reserved",
		// IPv4 inside IPv6
		"::ffff:127.0.0.1": "loopback", "::ffff:169.254.169.254": "link-local", "::ffff:0:0": "unspecified", "::ffff:10.0.0.1": "private",
		"::127.0.0.1": "IPv4 address in IPv6", "::ffff:0:127.0.0.1": "not global unicast",
		"64:ff9b::127.0.0.1": "NAT64 for 127.0.0.1, loopback", "64:ff9b::a9fe:a9fe": "NAT64 for 169.254.169.254, link-local",
		"64:ff9b::0.0.0.0": "NAT64 for 0.0.0.0, unspecified", "64:ff9b:1::10.0.0.1": "local NAT64",
		"2002:7f00:1::1": "6to4", "2002:a9fe:a9fe::1": "6to4", "2001:0:7f00:1::1": "Teredo",
		"2606::5efe:127.0.0.1": "ISATAP for 127.0.0.1, loopback", "2606::200:5efe:10.0.0.1": "ISATAP for 10.0.0.1, private", "2606::100:5efe:10.0.0.1": "ISATAP for 10.0.0.1, private", "fe80::5efe:8.8.8.8": "link-local",
	} {
		err := c.checkAddress("collector.example", netip.MustParseAddr(addr))
		if (err == nil) != (want == "") || err != nil && !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v, want %q", addr, err, want)
		}
	}
}

func TestAddressGrants(t *testing.T) {
	c := newClient(t, Policy{
		Hosts: []HostRule{
			{Host: "127.0.0.1", Methods: []string{"GET"}},
			{Host: "::1", Methods: []string{"GET"}},
			{Host: "169.254.169.254", Methods: []string{"GET"}},
			{Host: "collector.example", Methods: []string{"GET"}},
		},
		Private: []netip.Prefix{netip.MustParsePrefix("10.1.0.0/16"), netip.MustParsePrefix("fd00:1::/32")},
	})
	for _, k := range []struct {
		host, addr string
		ok         bool
	}{
		{"127.0.0.1", "127.0.0.1", true},
		{"127.0.0.1", "::ffff:127.0.0.1", true}, // the same address to the kernel
		{"::1", "::1", true},
		{"169.254.169.254", "169.254.169.254", true},
		{"127.0.0.1", "127.0.0.2", false},
		{"127.0.0.1", "64:ff9b::127.0.0.1", false},
		{"collector.example", "127.0.0.1", false}, // a name does not get what an address has
		{"collector.example", "::1", false},
		{"collector.example", "10.1.2.3", true},
		{"collector.example", "::ffff:10.1.2.3", true},
		{"collector.example", "10.2.0.0", false},
		{"collector.example", "64:ff9b::10.1.2.3", false},
		{"collector.example", "fd00:1::5", true},
		{"collector.example", "fd00:2::5", false},
		{"collector.example", "fd00:1::5%eth0", false},
	} {
		if err := c.checkAddress(k.host, netip.MustParseAddr(k.addr)); (err == nil) != k.ok {
			t.Errorf("%s at %s: %v", k.host, k.addr, err)
		}
	}
	// What no connection has to go to is not granted by a range either.
	c = newClient(t, Policy{Private: []netip.Prefix{netip.MustParsePrefix("0.0.0.0/0"), netip.MustParsePrefix("::/0")}})
	for _, a := range []string{"0.0.0.0", "::", "224.0.0.1", "ff02::1", "255.255.255.255", "::127.0.0.1", "0.0.0.1"} {
		if c.checkAddress("collector.example", netip.MustParseAddr(a)) == nil {
			t.Errorf("%s was granted", a)
		}
	}
}

// FuzzAddress: what passes without a grant is global unicast by the standard
// library's opinion too, and so is what a network could unpack from it.
func FuzzAddress(f *testing.F) {
	for _, s := range []string{"127.0.0.1", "::1", "64:ff9b::7f00:1", "2002:7f00:1::", "::ffff:10.0.0.1", "8.8.8.8", "2606::5efe:a00:1", "fe80::1"} {
		f.Add(netip.MustParseAddr(s).AsSlice())
	}
	c, err := New(Policy{})
	if err != nil {
		f.Fatal(err)
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		a, ok := netip.AddrFromSlice(b)
		if !ok || c.checkAddress("x", a) != nil {
			return
		}
		views := []netip.Addr{a, a.Unmap()}
		if a16 := a.As16(); a.Is6() && !a.Is4In6() {
			inner := netip.AddrFrom4([4]byte(a16[12:]))
			if strings.HasPrefix(a.StringExpanded(), "0064:ff9b:") || a.StringExpanded()[20] == '0' && a.StringExpanded()[21] < '4' && a.StringExpanded()[22:29] == "00:5efe" {
				views = append(views, inner)
			}
			if a16[0] == 0x20 && a16[1] == 0x02 {
				t.Fatalf("6to4 %s", a)
			}
		}
		for _, v := range views {
			if !v.IsGlobalUnicast() || v.IsPrivate() || v.IsLoopback() || v.IsLinkLocalUnicast() || v.IsMulticast() || v.IsUnspecified() {
				t.Fatalf("%s passes (as %s)", a, v)
			}
		}
	})
}

// nameServer answers each question with the next list of addresses; the last
// one stays.
type nameServer struct {
	mu      sync.Mutex
	answers [][]netip.Addr // guarded by mu
	asked   int            // guarded by mu; counts questions for A
}

func startNameServer(t *testing.T, answers ...[]netip.Addr) (*nameServer, *net.Resolver) {
	t.Helper()
	conn, err := net.ListenPacket("udp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	s := &nameServer{answers: answers}
	done := make(chan struct{})
	go func() {
		defer close(done)
		buf := make([]byte, 512)
		for {
			n, from, err := conn.ReadFrom(buf)
			if err != nil {
				return
			}
			_, _ = conn.WriteTo(s.answer(slices.Clone(buf[:n])), from)
		}
	}()
	t.Cleanup(func() { conn.Close(); <-done })
	return s, &net.Resolver{PreferGo: true, Dial: func(ctx context.Context, _, _ string) (net.Conn, error) {
		var d net.Dialer
		return d.DialContext(ctx, "udp", conn.LocalAddr().String())
	}}
}

// answer makes a DNS message (RFC 1035) of the question.
func (s *nameServer) answer(q []byte) []byte {
	end := 12
	for q[end] != 0 {
		end += int(q[end]) + 1
	}
	kind := binary.BigEndian.Uint16(q[end+1:])
	m := append(q[:2:2], 0x84, 0, 0, 1, 0, 0, 0, 0, 0, 0)
	m = append(m, q[12:end+5]...)
	if kind != 1 {
		return m // no address of this kind
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	addrs := s.answers[min(s.asked, len(s.answers)-1)]
	s.asked++
	m[7] = byte(len(addrs))
	for _, a := range addrs {
		m = append(m, 0xc0, 12, 0, 1, 0, 1, 0, 0, 0, 0, 0, 4)
		m = append(m, a.AsSlice()...)
	}
	return m
}

// TestRebinding: a name that resolved to a granted address and then resolves to
// another one does not get there.
func TestRebinding(t *testing.T) {
	var reached atomic.Int32
	base := serve(t, func(w http.ResponseWriter, _ *http.Request) {
		reached.Add(1)
		w.Header().Set("Connection", "close") // the next request looks the name up again
	})
	good, bad := netip.MustParseAddr("127.0.0.1"), netip.MustParseAddr("127.0.0.2")
	dns, resolver := startNameServer(t, []netip.Addr{good}, []netip.Addr{bad}, []netip.Addr{bad, good}, []netip.Addr{netip.MustParseAddr("169.254.169.254")})
	rule := ruleFor(t, base)
	rule.Host = "collector.example"
	c := newClient(t, Policy{Hosts: []HostRule{rule}, Private: []netip.Prefix{netip.PrefixFrom(good, 32)}, Resolver: resolver})
	target := strings.Replace(base, "127.0.0.1", "collector.example", 1)
	if _, err := get(t, c, target); err != nil {
		t.Fatal(err)
	}
	_, err := get(t, c, target)
	wantRefused(t, err, 0, "collector.example is at 127.0.0.2, which is loopback; grant its range as private")
	// Of several addresses only the granted one is connected to.
	if _, err := get(t, c, target); err != nil {
		t.Fatal(err)
	}
	_, err = get(t, c, target)
	wantRefused(t, err, 0, "link-local")
	dns.mu.Lock()
	defer dns.mu.Unlock()
	if reached.Load() != 2 || dns.asked != 4 || c.Counters().Refused != 2 {
		t.Errorf("reached %d times, asked %d times, %+v", reached.Load(), dns.asked, c.Counters())
	}
}

// TestNameOfLoopback: localhost is a name like any other.
func TestNameOfLoopback(t *testing.T) {
	base := serve(t, func(http.ResponseWriter, *http.Request) {})
	rule := ruleFor(t, base)
	rule.Host = "localhost"
	c := newClient(t, Policy{Hosts: []HostRule{rule}})
	_, err := get(t, c, localhost(base))
	wantRefused(t, err, 0, "loopback")
}
