package queue_test

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/audit-host/audit-host/queue"
	"github.com/audit-host/audit-host/queue/queuetest"
)

const childEnv = "AUDIT_HOST_QUEUE_CHILD" // prefix, colon, directory

func TestMain(m *testing.M) {
	if prefix, dir, ok := strings.Cut(os.Getenv(childEnv), ":"); ok {
		q, err := queue.OpenDisk(context.Background(), smallDisk(queue.DiskOptions{Dir: dir}))
		if err == nil {
			err = queuetest.Child(q, os.Stdout, prefix)
		}
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	os.Exit(m.Run())
}

// smallDisk makes segments small, so that tests have several.
func smallDisk(o queue.DiskOptions) queue.DiskOptions {
	o.SegmentBytes = 32 << 10
	o.MaxBytes = 64 << 20
	o.MaxEvent = 8 << 10
	o.CacheBytes = 16 << 10
	return o
}

// diskSite is a queue on a disk that can be hurt.
type diskSite struct {
	disk queue.DiskFS
	now  *faultFS // the process that has it open
}

func (s *diskSite) open(o queue.DiskOptions) (*queue.Disk, error) {
	d := newFaultFS(s.disk)
	q, err := queue.OpenDisk(context.Background(), queue.WithFS(o, d))
	if err != nil {
		if n := d.open(); n != 0 {
			return nil, fmt.Errorf("%d handles are open after a failed opening: %w", n, err)
		}
		return nil, err
	}
	s.now = d
	return q, nil
}

// crash ends the process without a Close. What it was about to do is not done.
func (s *diskSite) crash(q queue.Queue) {
	s.now.kill()
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	_ = q.Close(ctx) // only to end its goroutines
}

func (s *diskSite) site() *queuetest.Site {
	return &queuetest.Site{
		Persistent: true,
		Open: func(o queuetest.Options) (queue.Queue, error) {
			do := smallDisk(queue.DiskOptions{LossRecord: o.LossRecord})
			if o.Small {
				do.SegmentBytes, do.MaxBytes, do.MaxBuffered, do.MaxEvent = 16<<10, 256<<10, 64<<10, 4<<10
			}
			q, err := s.open(do)
			if err != nil {
				return nil, err
			}
			return q, nil
		},
		Crash:    s.crash,
		Stall:    func() func() { return s.now.stall() },
		FailSync: func() func() { return s.now.failSync() },
		Handles:  func() int { return s.now.open() },
	}
}

const noGap = "nobody else can reach into the queue"

// memSite is a site on a disk in memory.
func memSite() (*diskSite, *memDisk) {
	disk := newMemDisk()
	return &diskSite{disk: disk}, disk
}

// osSite is a site in a real directory.
func osSite(t *testing.T) (*queuetest.Site, string) {
	t.Helper()
	dir := filepath.Join(t.TempDir(), "queue")
	disk, err := queue.NewOSFS(dir)
	if err != nil {
		t.Fatal(err)
	}
	s := &diskSite{disk: disk}
	site := s.site()
	site.Child = func(prefix string) *exec.Cmd {
		cmd := exec.Command(os.Args[0])
		cmd.Env = append(os.Environ(), childEnv+"="+prefix+":"+dir)
		return cmd
	}
	return site, dir
}

// All of the suite: C18 needs processes, and so real files; all else is done to
// a disk in memory.
func TestDiskConformance(t *testing.T) {
	queuetest.Run(t, queuetest.Factory{
		New: func(t *testing.T) *queuetest.Site {
			if strings.Contains(t.Name(), "C18") {
				site, _ := osSite(t)
				return site
			}
			s, disk := memSite()
			site := s.site()
			site.PowerLoss = func(q queue.Queue, seed uint64) {
				s.crash(q)
				disk.cutPower(seed)
			}
			site.Files, site.SetFiles = disk.files, disk.setFiles
			return site
		},
		Missing: map[string]string{"C21_gap": noGap},
	})
}

// The same on real files, except for what only a disk in memory can do.
func TestDiskConformanceRealFiles(t *testing.T) {
	queuetest.Run(t, queuetest.Factory{
		New: func(t *testing.T) *queuetest.Site {
			site, _ := osSite(t)
			return site
		},
		Missing: map[string]string{
			"C19_power_loss": "the machine's power is not ours to cut",
			"C20_damage":     "thousands of openings with their fsyncs",
			"C21_gap":        noGap,
		},
	})
}
