package queue_test

import (
	"testing"

	"github.com/audit-host/audit-host/queue"
	"github.com/audit-host/audit-host/queue/queuetest"
)

const memoryForgets = "what is in memory is gone with its process"

func TestMemoryConformance(t *testing.T) {
	queuetest.Run(t, queuetest.Factory{
		New: func(t *testing.T) *queuetest.Site {
			return &queuetest.Site{
				Open: func(o queuetest.Options) (queue.Queue, error) {
					mo := queue.MemoryOptions{LossRecord: o.LossRecord}
					if o.Small {
						mo.MaxBytes = 300 << 10
						mo.MaxEvent = 4 << 10
					}
					return queue.NewMemory(mo), nil
				},
			}
		},
		Missing: map[string]string{
			"C05_levels":                 memoryForgets,
			"C06_redelivery_after_crash": memoryForgets,
			"C17_failed_sync":            "nothing is synced",
			"C18_kill":                   memoryForgets,
			"C19_power_loss":             memoryForgets,
			"C20_damage":                 "nothing is stored",
			"C21_gap":                    "nobody else can reach into the queue",
		},
	})
}
