package control

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net/http"

	"github.com/audit-host/audit-host/cmd/audit-host/internal/config"
	"github.com/audit-host/audit-host/cmd/audit-host/internal/pipeline"
)

// reloadAnswer is what a reload came to.
type reloadAnswer struct {
	pipeline.Reloaded
	// Error says why nothing was changed; Configuration that it is about the text
	// of the configuration, and lists problems by their place.
	Error         string `json:"error,omitempty"`
	Configuration bool   `json:"configuration,omitempty"`
}

// ReloadError is why a reload changed nothing.
type ReloadError struct {
	Text string
	// Configuration tells that the text lists problems of the configuration.
	Configuration bool
}

// Error is what the daemon said.
func (e *ReloadError) Error() string { return e.Text }

// Reload has the daemon follow its configuration. The error is a *[ReloadError] if
// the daemon has refused.
func (c *Client) Reload(ctx context.Context) (pipeline.Reloaded, error) {
	a, err := c.do(ctx, http.MethodPost, "/v1/reload", nil)
	if err != nil {
		return pipeline.Reloaded{}, err
	}
	defer a.Close()
	var r reloadAnswer
	if err := json.NewDecoder(a).Decode(&r); err != nil {
		return pipeline.Reloaded{}, fmt.Errorf("the daemon ended before the reload did: %w; the next start goes by the configuration", err)
	}
	if r.Error != "" {
		return r.Reloaded, &ReloadError{r.Error, r.Configuration}
	}
	return r.Reloaded, nil
}

// reload answers when the reload has ended. Whoever hangs up does not end it.
func (s *server) reload(w http.ResponseWriter, r *http.Request) {
	s.asked(r, "an operator asks for a reload")
	out, err := s.p.Reload(r.Context())
	if err != nil && r.Context().Err() != nil {
		s.log.Warn("whoever asked for a reload does not wait for it", slog.Any("error", err))
	}
	a := reloadAnswer{Reloaded: out}
	if err != nil {
		var problems *config.Problems
		a.Error, a.Configuration = err.Error(), errors.As(err, &problems)
	}
	answer(w, http.StatusOK, a)
}
