package control

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"net/http"
	"net/url"
	"syscall"

	"github.com/audit-host/audit-host/cmd/audit-host/internal/pipeline"
)

// maxLine bounds a line of an answer in bytes.
const maxLine = 1 << 20

// Client talks to the daemon of one state directory.
type Client struct{ http http.Client }

// Dial looks for the daemon of a state directory. The error wraps [ErrNoDaemon]
// if there is none.
func Dial(ctx context.Context, dir string) (*Client, error) {
	dial := func(ctx context.Context, _, _ string) (net.Conn, error) {
		name, done, err := address(dir)
		if err != nil {
			return nil, err
		}
		defer done()
		return new(net.Dialer).DialContext(ctx, "unix", name)
	}
	conn, err := dial(ctx, "", "")
	switch {
	case errors.Is(err, fs.ErrNotExist), errors.Is(err, syscall.ECONNREFUSED), errors.Is(err, syscall.ENOTDIR):
		return nil, fmt.Errorf("%w on the state directory %s", ErrNoDaemon, dir)
	case errors.Is(err, fs.ErrPermission):
		return nil, fmt.Errorf("reach the daemon: %w; run this as the daemon's user or as root", err)
	case err != nil:
		return nil, fmt.Errorf("reach the daemon: %w", err)
	}
	if err := conn.Close(); err != nil {
		return nil, fmt.Errorf("reach the daemon: %w", err)
	}
	c := &Client{}
	c.http.Transport = &http.Transport{DialContext: dial, DisableKeepAlives: true}
	return c, nil
}

// do sends a request and returns the answer to it, if that is 200.
func (c *Client) do(ctx context.Context, method, path string, body any) (io.ReadCloser, error) {
	var in io.Reader
	if body != nil {
		text, err := json.Marshal(body)
		if err != nil {
			return nil, fmt.Errorf("ask the daemon: %w", err)
		}
		in = bytes.NewReader(text)
	}
	r, err := http.NewRequestWithContext(ctx, method, "http://daemon"+path, in)
	if err != nil {
		return nil, fmt.Errorf("ask the daemon: %w", err)
	}
	a, err := c.http.Do(r)
	switch {
	case err != nil:
		return nil, fmt.Errorf("ask the daemon: %w", err)
	case a.StatusCode == http.StatusOK:
		return a.Body, nil
	}
	defer a.Body.Close()
	var e errorAnswer
	if err := json.NewDecoder(io.LimitReader(a.Body, maxLine)).Decode(&e); err != nil || e.Error == "" {
		return nil, fmt.Errorf("ask the daemon: it answers %s; is it another version?", a.Status)
	}
	return nil, errors.New(e.Error)
}

// Sinks returns the daemon's sinks.
func (c *Client) Sinks(ctx context.Context) ([]Sink, error) {
	a, err := c.do(ctx, http.MethodGet, "/v1/sinks", nil)
	if err != nil {
		return nil, err
	}
	defer a.Close()
	var list struct{ Sinks []Sink }
	if err := json.NewDecoder(a).Decode(&list); err != nil {
		return nil, fmt.Errorf("read the daemon's answer: %w", err)
	}
	return list.Sinks, nil
}

// Resume lets a parked sink deliver again.
func (c *Client) Resume(ctx context.Context, sink string) error {
	a, err := c.do(ctx, http.MethodPost, "/v1/sinks/"+url.PathEscape(sink)+"/resume", nil)
	if err != nil {
		return err
	}
	return a.Close()
}

// Forget gives up what the queue keeps for a sink that is not configured, and says
// how many events it had not taken. Without write it only says that.
func (c *Client) Forget(ctx context.Context, sink string, write bool) (pending uint64, err error) {
	path := "/v1/sinks/" + url.PathEscape(sink) + "/forget"
	if !write {
		path += "?dry_run=1"
	}
	a, err := c.do(ctx, http.MethodPost, path, nil)
	if err != nil {
		return 0, err
	}
	defer a.Close()
	var f forgotten
	if err := json.NewDecoder(a).Decode(&f); err != nil {
		return 0, fmt.Errorf("read the daemon's answer: %w", err)
	}
	return f.Pending, nil
}

// Replay is [pipeline.Pipeline.Replay] in the daemon. With an error the summary has
// what the daemon has told.
func (c *Client) Replay(ctx context.Context, o pipeline.ReplayOptions) (s pipeline.ReplaySummary, err error) {
	a, err := c.do(ctx, http.MethodPost, "/v1/dead-letters/replay", replayRequest{o.Filter})
	if err != nil {
		return s, err
	}
	defer a.Close()
	lines := bufio.NewScanner(a)
	lines.Buffer(nil, maxLine)
	for lines.Scan() {
		var l replayLine
		if err := json.Unmarshal(lines.Bytes(), &l); err != nil {
			return s, fmt.Errorf("read the daemon's answer: %w", err)
		}
		switch {
		case l.Summary != nil && l.Error != "":
			return *l.Summary, errors.New(l.Error)
		case l.Summary != nil:
			return *l.Summary, nil
		case l.Selected != nil:
			s.Selected = *l.Selected
			if o.Begin != nil {
				o.Begin(s.Selected)
			}
		case l.Letter != nil:
			s.Add(l.Letter.Fate)
			if o.Each != nil {
				o.Each(*l.Letter)
			}
		}
	}
	if err = lines.Err(); err == nil {
		err = io.ErrUnexpectedEOF
	}
	return s, fmt.Errorf("the daemon ended before the replay did: %w; what was stored is stored, replay again for the rest", err)
}
