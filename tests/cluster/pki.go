package main

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"fmt"
	"math/big"
	"net"
	"os"
	"time"
)

// certificateLife is long enough for a cluster that a developer keeps, short enough to be worthless later.
const certificateLife = 90 * 24 * time.Hour

// authority is one cluster's certificate authority. Its key never leaves this process.
type authority struct {
	certificate *x509.Certificate
	key         crypto.Signer
	pem         []byte
}

// subject is what a certificate is issued for: a server has addresses, a client has a user name and groups.
type subject struct {
	name   string
	groups []string
	dns    []string
	ips    []net.IP
}

func newAuthority() (*authority, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, err
	}
	template := certificateTemplate(pkix.Name{CommonName: "godwit-test-cluster"})
	template.IsCA = true
	template.KeyUsage = x509.KeyUsageCertSign | x509.KeyUsageDigitalSignature
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		return nil, fmt.Errorf("making the certificate authority: %w", err)
	}
	certificate, err := x509.ParseCertificate(der)
	if err != nil {
		return nil, err
	}
	return &authority{certificate, key, encodePEM("CERTIFICATE", der)}, nil
}

// issue returns certificate and key as PEM. Keys are PKCS#8, the form that every client's TLS library reads.
func (a *authority) issue(of subject) (certificate, key []byte, err error) {
	private, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, nil, err
	}
	template := certificateTemplate(pkix.Name{CommonName: of.name, Organization: of.groups})
	template.KeyUsage = x509.KeyUsageDigitalSignature
	template.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth}
	if len(of.dns)+len(of.ips) > 0 {
		template.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth}
		template.DNSNames, template.IPAddresses = of.dns, of.ips
	}
	der, err := x509.CreateCertificate(rand.Reader, template, a.certificate, private.Public(), a.key)
	if err != nil {
		return nil, nil, fmt.Errorf("issuing a certificate for %s: %w", of.name, err)
	}
	key, err = encodeKey(private)
	return encodePEM("CERTIFICATE", der), key, err
}

// issueFiles writes NAME.crt and NAME.key.
func (a *authority) issueFiles(layout Layout, name string, of subject) error {
	certificate, key, err := a.issue(of)
	if err != nil {
		return err
	}
	if err := os.WriteFile(layout.PKI(name+".crt"), certificate, 0o600); err != nil {
		return err
	}
	return os.WriteFile(layout.PKI(name+".key"), key, 0o600)
}

// writeServiceAccountKey makes the key that signs service account tokens, and its public half that verifies them.
func writeServiceAccountKey(layout Layout) error {
	private, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return err
	}
	key, err := encodeKey(private)
	if err != nil {
		return err
	}
	public, err := x509.MarshalPKIXPublicKey(private.Public())
	if err != nil {
		return err
	}
	if err := os.WriteFile(layout.PKI("service-accounts.key"), key, 0o600); err != nil {
		return err
	}
	return os.WriteFile(layout.PKI("service-accounts.pub"), encodePEM("PUBLIC KEY", public), 0o600)
}

func certificateTemplate(name pkix.Name) *x509.Certificate {
	serial, _ := rand.Int(rand.Reader, new(big.Int).Lsh(big.NewInt(1), 120))
	now := time.Now()
	return &x509.Certificate{
		SerialNumber: serial,
		Subject:      name,
		// Clocks of a virtual machine may be set back a little after a restart.
		NotBefore:             now.Add(-time.Hour),
		NotAfter:              now.Add(certificateLife),
		BasicConstraintsValid: true,
	}
}

func encodeKey(key *ecdsa.PrivateKey) ([]byte, error) {
	der, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return nil, err
	}
	return encodePEM("PRIVATE KEY", der), nil
}

func encodePEM(kind string, der []byte) []byte {
	return pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der})
}
