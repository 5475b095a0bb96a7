package web

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"io"
	"log"
	"log/slog"
	"math/big"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/crypto/bcrypt"
)

// certificate writes one for 127.0.0.1, and returns a pool that trusts it.
func certificate(t *testing.T, dir string) *x509.CertPool {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
		IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)}, IsCA: true, BasicConstraintsValid: true,
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, &key.PublicKey, key)
	if err != nil {
		t.Fatal(err)
	}
	private, err := x509.MarshalECPrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	crt := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})
	write(t, filepath.Join(dir, "web.crt"), string(crt))
	write(t, filepath.Join(dir, "web.key"), string(pem.EncodeToMemory(&pem.Block{Type: "EC PRIVATE KEY", Bytes: private})))
	pool := x509.NewCertPool()
	pool.AppendCertsFromPEM(crt)
	return pool
}

func write(t *testing.T, file, text string) {
	t.Helper()
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
}

// buffer is a log that can be read while it is written.
type buffer struct {
	mu   sync.Mutex
	text strings.Builder
}

func (b *buffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.text.Write(p)
}

func (b *buffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.text.String()
}

// wait returns the text as soon as it has word, which a server may write after the client
// has its answer; without it, what there is after 30 s.
func (b *buffer) wait(word string) string {
	deadline := time.Now().Add(30 * time.Second)
	for !strings.Contains(b.String(), word) && time.Now().Before(deadline) {
		time.Sleep(2 * time.Millisecond)
	}
	return b.String()
}

func users(t *testing.T, password string) string {
	t.Helper()
	hash, err := bcrypt.GenerateFromPassword([]byte(password), bcrypt.MinCost)
	if err != nil {
		t.Fatal(err)
	}
	return "basic_auth_users: {prometheus: '" + string(hash) + "'}\n"
}

// TLS and a password are asked for; a changed file counts at once; one that went bad
// refuses everybody, is told to the log, and no secret with it.
func TestServe(t *testing.T) {
	dir := t.TempDir()
	file := filepath.Join(dir, "web.yml")
	pool := certificate(t, dir)
	const tlsPart = "tls_server_config: {cert_file: web.crt, key_file: web.key}\n"
	write(t, file, tlsPart+users(t, "hunter2"))
	if err := Check(file); err != nil {
		t.Fatal(err)
	}
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	var out buffer
	logger := slog.New(slog.NewTextHandler(&out, &slog.HandlerOptions{Level: slog.LevelDebug}))
	srv := &http.Server{
		Handler:           http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, "hello") }),
		ReadHeaderTimeout: 10 * time.Second, ErrorLog: log.New(&out, "", 0),
	}
	done := make(chan error, 1)
	go func() { done <- Serve(ln, srv, file, logger) }()

	get := func(scheme, password string) (int, string) {
		t.Helper()
		client := &http.Client{Timeout: 20 * time.Second, Transport: &http.Transport{
			TLSClientConfig: &tls.Config{RootCAs: pool}, DisableKeepAlives: true,
		}}
		req, err := http.NewRequestWithContext(t.Context(), "GET", scheme+"://"+ln.Addr().String()+"/", nil)
		if err != nil {
			t.Fatal(err)
		}
		if password != "" {
			req.SetBasicAuth("prometheus", password)
		}
		resp, err := client.Do(req)
		if err != nil {
			return 0, err.Error()
		}
		defer resp.Body.Close()
		body, _ := io.ReadAll(resp.Body)
		return resp.StatusCode, string(body)
	}
	expect := func(what, scheme, password string, want int) {
		t.Helper()
		if code, body := get(scheme, password); code != want {
			t.Errorf("%s: %d %s, want %d", what, code, body, want)
		}
	}
	expect("password", "https", "hunter2", 200)
	expect("wrong password", "https", "hunter3", 401)
	expect("no password", "https", "", 401)
	expect("no TLS", "http", "hunter2", 400)
	if out.String() != "" && strings.Contains(out.String(), "TLS is enabled") {
		t.Errorf("the toolkit's words are in the log: %s", &out)
	}

	write(t, file, tlsPart+users(t, "hunter4"))
	expect("the new password", "https", "hunter4", 200)
	expect("the old password", "https", "hunter2", 401)

	write(t, file, tlsPart+"basic_auth_users: hunter4\n")
	if err := Check(file); err == nil || strings.Contains(err.Error(), "hunter") {
		t.Errorf("Check = %v, want an error without the secret", err)
	}
	expect("a bad file", "https", "hunter4", 0) // no handshake
	if got := out.wait("cannot unmarshal"); strings.Contains(got, "hunter") || !strings.Contains(got, "cannot unmarshal") {
		t.Errorf("log: %s\nwant a word of the file, and no secret", got)
	}

	if err := srv.Shutdown(context.Background()); err != nil {
		t.Error(err)
	}
	if err := <-done; !errors.Is(err, http.ErrServerClosed) {
		t.Errorf("Serve = %v", err)
	}
}

// Without TLS, it is each request that finds the file bad.
func TestBadFileIsLogged(t *testing.T) {
	file := filepath.Join(t.TempDir(), "web.yml")
	write(t, file, users(t, "hunter2"))
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	var out buffer
	srv := &http.Server{Handler: http.NotFoundHandler(), ReadHeaderTimeout: 10 * time.Second}
	done := make(chan error, 1)
	go func() { done <- Serve(ln, srv, file, slog.New(slog.NewTextHandler(&out, nil))) }()
	get := func() int {
		resp, err := http.Get("http://" + ln.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		resp.Body.Close()
		return resp.StatusCode
	}
	if code := get(); code != 401 {
		t.Fatalf("status %d, want 401 while the file is good", code)
	}
	write(t, file, "basic_auth_users: hunter2\n")
	code := get()
	if got := out.wait("line 1"); code != 500 || strings.Contains(got, "hunter") || !strings.Contains(got, "web configuration went bad") || !strings.Contains(got, "line 1") {
		t.Errorf("status %d; log: %s\nwant 500, and the line of the file without the secret", code, got)
	}
	srv.Close()
	<-done
}
