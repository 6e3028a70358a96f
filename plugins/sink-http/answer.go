package main

import (
	"encoding/json"
	"strconv"
	"strings"
	"time"

	"github.com/audit-host/audit-host/abi"
	"github.com/audit-host/audit-host/abi/guest"
)

// Pauses to wish for.
const (
	pauseBusy   = time.Second      // the collector is not to be had
	pauseConfig = 10 * time.Second // somebody has to change something
	longest     = time.Hour        // the most that a Retry-After is believed
)

// Statuses of HTTP that are told apart. Package net/http would make the plugin
// twice as large.
const (
	statusBadRequest    = 400
	statusUnauthorized  = 401
	statusForbidden     = 403
	statusNotFound      = 404
	statusTimeout       = 408
	statusConflict      = 409
	statusTooLarge      = 413
	statusUnprocessable = 422
	statusTooEarly      = 425
	statusTooMany       = 429
)

// judge turns the collector's answer into one for the host.
func (s *sink) judge(b abi.View, a *abi.HTTPAnswer, status abi.Status, text string) guest.Answer {
	switch status {
	case abi.StatusDone:
	case abi.StatusRefused, abi.StatusInvalid:
		return guest.Busy(pauseConfig, "the request is refused by the grant: "+text)
	case abi.StatusTooLarge:
		// Nothing was sent. It comes again in halves; one event alone that is
		// too large never fits.
		return guest.Reject("the request is too large: " + text)
	default:
		return guest.Busy(pauseBusy, text)
	}
	what := "HTTP " + strconv.Itoa(int(a.Status)) + excerpt(a.Body)
	switch a.Status {
	case statusBadRequest:
		if s.config.Format == splunk {
			if n, ok := invalidEvent(a.Body, b.Len()); ok {
				return blame(b, n, what)
			}
		}
		return guest.Reject(what)
	case statusTooLarge, statusUnprocessable:
		return guest.Reject(what)
	case statusTimeout, statusTooEarly, statusTooMany:
		return guest.Busy(retryAfter(a, pauseBusy), what)
	}
	switch {
	case a.Status >= 500:
		return guest.Busy(retryAfter(a, pauseBusy), what)
	case a.Status < 200 || a.Status > 299:
		// 401, 403, 404, a redirect: no fault of the events, and none that
		// goes away by itself.
		return guest.Busy(retryAfter(a, pauseConfig), what)
	}
	if s.config.Format == elasticsearch {
		return bulk(b, a)
	}
	return guest.OK(b.Len())
}

// retryAfter is how long the collector wants to be left alone: seconds, or a
// date, which is compared with the answer's own so that no clock is needed.
func retryAfter(a *abi.HTTPAnswer, otherwise time.Duration) time.Duration {
	text := a.Get("retry-after")
	if text == "" {
		return otherwise
	}
	if n, err := strconv.ParseUint(text, 10, 32); err == nil {
		return min(time.Duration(n)*time.Second, longest)
	}
	then, ok := date(text)
	now, known := date(a.Get("date"))
	if !ok || !known {
		return otherwise
	}
	return min(max(then.Sub(now), 0), longest)
}

// date reads a date of HTTP, in one of its three forms (RFC 9110, 5.6.7).
func date(text string) (time.Time, bool) {
	for _, form := range [...]string{"Mon, 02 Jan 2006 15:04:05 GMT", time.RFC850, time.ANSIC} {
		if t, err := time.Parse(form, text); err == nil {
			return t, true
		}
	}
	return time.Time{}, false
}

// maxExcerpt is how much of an answer's body a message has, in bytes.
const maxExcerpt = 300

func excerpt(body []byte) string {
	text := strings.TrimSpace(strings.ToValidUTF8(string(body[:min(len(body), maxExcerpt)]), ""))
	if text == "" {
		return ""
	}
	return ": " + text
}

// invalidEvent reads which event Splunk refuses, counted from 0.
func invalidEvent(body []byte, events int) (int, bool) {
	var answer struct {
		Invalid *int `json:"invalid-event-number"`
	}
	if json.Unmarshal(body, &answer) != nil || answer.Invalid == nil || *answer.Invalid < 0 || *answer.Invalid >= events {
		return 0, false
	}
	return *answer.Invalid, true
}

// blame refuses one event. Whether the collector has stored those before it is
// not said, so all others are sent again.
func blame(b abi.View, n int, why string) guest.Answer {
	for i := range b.Len() {
		if i == n {
			guest.Verdict(uint32(i), abi.Reject, why)
		} else {
			guest.Verdict(uint32(i), abi.Retry, "another event of the batch was refused")
		}
	}
	return guest.Partial(0)
}

// bulkAnswer is what is looked at of an answer to _bulk.
type bulkAnswer struct {
	Errors *bool `json:"errors"`
	Items  []struct {
		Create struct {
			Status int `json:"status"`
			Error  struct {
				Type   string `json:"type"`
				Reason string `json:"reason"`
			} `json:"error"`
		} `json:"create"`
	} `json:"items"`
}

// bulk gives each event the verdict of its item.
func bulk(b abi.View, a *abi.HTTPAnswer) guest.Answer {
	if a.Flags&abi.HTTPCut != 0 {
		// The documents are there, mostly, and are found to be so next time.
		return guest.Busy(pauseBusy, "the answer has "+strconv.Itoa(int(a.Full))+" bytes, more room is made for the next one; lower batch_events if this stays")
	}
	if a.Flags&abi.HTTPWithheld != 0 {
		return guest.Busy(pauseConfig, "the answer is compressed although that was not asked for, and was withheld; switch compression off in the server or proxy")
	}
	var answer bulkAnswer
	if err := json.Unmarshal(a.Body, &answer); err != nil || answer.Errors == nil {
		return guest.Busy(pauseConfig, "this is no answer of _bulk, is url right?"+excerpt(a.Body))
	}
	if !*answer.Errors {
		return guest.OK(b.Len())
	}
	if len(answer.Items) != b.Len() {
		return guest.Busy(pauseConfig, "the answer has "+strconv.Itoa(len(answer.Items))+" items for "+strconv.Itoa(b.Len())+" events")
	}
	stored, again := 0, 0
	for i := range answer.Items {
		switch verdictOf(answer.Items[i].Create.Status) {
		case abi.OK:
			stored++
		case abi.Retry:
			again++
		}
	}
	switch {
	case stored == b.Len():
		return guest.OK(stored) // all were there already
	case again == b.Len():
		return guest.Busy(retryAfter(a, pauseBusy), "all items are refused for now: "+answer.Items[0].Create.Error.Type)
	}
	for i := range answer.Items {
		item := &answer.Items[i].Create
		if code := verdictOf(item.Status); code != abi.OK {
			guest.Verdict(uint32(i), code, "HTTP "+strconv.Itoa(item.Status)+": "+item.Error.Type+": "+item.Error.Reason)
		}
	}
	return guest.Partial(stored)
}

// verdictOf maps the status of an item. 409 is a document of that id which is
// there already: stored, since only create was asked for.
func verdictOf(status int) abi.Outcome {
	switch {
	case status >= 200 && status <= 299, status == statusConflict:
		return abi.OK
	case status == statusTooMany, status >= 500, status == statusUnauthorized, status == statusForbidden, status == statusNotFound, status == 0:
		return abi.Retry
	}
	return abi.Reject
}
