package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strings"
	"time"

	"github.com/sluice-proxy/sluice/proxy/ask"
)

// answerLimit is how long an answer may take. To compare all that a large cluster has in the kernel takes a while.
const answerLimit = 5 * time.Minute

// kernelDiffers is the header of an answer that says that something is not as it should be in the kernel.
const kernelDiffers = "Sluice-Kernel-Differs"

// askProxy has the proxy that runs in this network namespace answer. After an answer with kernelDiffers it gives differs.
func askProxy(ctx context.Context, path string, values url.Values, w io.Writer) error {
	address := url.URL{Scheme: "http", Host: "node", Path: path, RawQuery: values.Encode()}
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, address.String(), nil)
	if err != nil {
		return err
	}
	client := ask.NewClient(ask.Name)
	client.Timeout = answerLimit
	response, err := client.Do(request)
	if err != nil {
		if inner := (*url.Error)(nil); errors.As(err, &inner) {
			err = inner.Err
		}
		return fmt.Errorf("ask the proxy: %w", err)
	}
	defer func() { _ = response.Body.Close() }()
	if response.StatusCode != http.StatusOK {
		said, _ := io.ReadAll(io.LimitReader(response.Body, 4096))
		return errors.New(strings.TrimSpace(string(said)))
	}
	_, err = io.Copy(w, response.Body)
	if err == nil && response.Header.Get(kernelDiffers) != "" {
		return differs
	}
	return err
}
