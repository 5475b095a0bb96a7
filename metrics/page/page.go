// Package page shows the daemon's state to a person with a browser: one page of HTML with
// an SVG in it, without scripts and without anything to fetch. It reads an overview and
// changes nothing.
package page

import (
	"bytes"
	"crypto/sha256"
	_ "embed"
	"encoding/base64"
	"html/template"
	"net/http"
	"time"

	"github.com/nexthopd/nexthopd/agent/status"
)

// Source is asked once per page, from any goroutine.
type Source interface {
	Overview() status.Overview
}

var (
	//go:embed style.css
	style string
	//go:embed page.html
	text string

	page = template.Must(template.New("page").Funcs(template.FuncMap{
		"style": func() template.CSS { return template.CSS(style) },
	}).Parse(text))

	// policy lets nothing in but the page's own style.
	policy = "default-src 'none'; style-src 'sha256-" + hashOf(style) + "'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)

func hashOf(s string) string {
	sum := sha256.Sum256([]byte(s))
	return base64.StdEncoding.EncodeToString(sum[:])
}

// Handler answers with the page.
func Handler(src Source) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		var b bytes.Buffer
		if err := page.Execute(&b, newView(src.Overview(), time.Now())); err != nil {
			http.Error(w, "bug: "+err.Error(), http.StatusInternalServerError)
			return
		}
		h := w.Header()
		h.Set("Content-Type", "text/html; charset=utf-8")
		h.Set("Content-Security-Policy", policy)
		h.Set("X-Content-Type-Options", "nosniff")
		h.Set("Referrer-Policy", "no-referrer")
		h.Set("Cache-Control", "no-store")
		_, _ = w.Write(b.Bytes()) // the client has gone if this fails
	})
}
