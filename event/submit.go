package event

import (
	"fmt"

	"github.com/audit-host/audit-host/abi"
)

// SubmitRefusal makes the event of a refusal and hands it to submit. It returns
// true if submit took it. For any other decision it returns false and no error,
// and calls nothing, so that no counter moves.
func SubmitRefusal(submit func(abi.Event) error, agentID string, a Action, d Decision) (bool, error) {
	e, refusal, err := FromRefusal(agentID, a, d)
	if err != nil || !refusal {
		return false, err
	}
	if err := submit(e); err != nil {
		return false, fmt.Errorf("submit refusal of %s: %w", show(agentID), err)
	}
	return true, nil
}
