// SPDX-License-Identifier: Apache-2.0

package control

import (
	"bytes"
	"context"
	"errors"
	"io"
	"net/http"
	"net/url"
	"time"

	"github.com/fbpp-project/fbpp/device"
	"github.com/fbpp-project/fbpp/device/driver"
	"github.com/fbpp-project/fbpp/device/protocol/bundle"
)

// pushProgram takes a program file as the body.
func pushProgram(w http.ResponseWriter, r *http.Request, d Device) {
	at := driver.AtNow
	if text := r.URL.Query().Get("at"); text != "" {
		if err := at.Set(text); err != nil {
			http.Error(w, err.Error(), http.StatusBadRequest)
			return
		}
	}
	_ = http.NewResponseController(w).SetReadDeadline(time.Now().Add(patience)) // see readJSON
	file, err := io.ReadAll(http.MaxBytesReader(w, r.Body, int64(bundle.MaxSize)))
	if err == nil {
		err = d.PushProgram(file, at)
	}
	if err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}
	writeJSON(w, d.Status())
}

func withdrawProgram(w http.ResponseWriter, r *http.Request, d Device) {
	switch err := d.WithdrawProgram(r.PathValue("digest")); {
	case errors.Is(err, driver.ErrNoProgram):
		http.Error(w, err.Error(), http.StatusNotFound)
	case err != nil:
		http.Error(w, err.Error(), http.StatusInternalServerError)
	default:
		writeJSON(w, d.Status())
	}
}

// PushProgram offers the guest a program, and returns the state after it. A file that is
// none of package bundle is an error.
func (c *Client) PushProgram(
	ctx context.Context, file []byte, at driver.When,
) (s device.Status, err error) {
	path := "/v1/programs?at=" + url.QueryEscape(string(at))
	err = c.send(ctx, http.MethodPost, path, bytes.NewReader(file), &s)
	return s, err
}

// WithdrawProgram has the guest take a program out of use, and returns the state after it.
func (c *Client) WithdrawProgram(
	ctx context.Context, digest string,
) (s device.Status, err error) {
	err = c.ask(ctx, http.MethodDelete, "/v1/programs/"+url.PathEscape(digest), nil, &s)
	return s, err
}
