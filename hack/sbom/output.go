package main

import (
	"bytes"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"strings"
)

// These are the parts of CycloneDX 1.6 that a list of modules needs.
type (
	document struct {
		Format     string      `json:"bomFormat"`
		Spec       string      `json:"specVersion"`
		Version    int         `json:"version"`
		Metadata   metadata    `json:"metadata"`
		Components []component `json:"components"`
	}
	metadata struct {
		Component component `json:"component"`
	}
	component struct {
		Ref      string    `json:"bom-ref"`
		Type     string    `json:"type"`
		Name     string    `json:"name"`
		Version  string    `json:"version"`
		Purl     string    `json:"purl"`
		Hashes   []hash    `json:"hashes,omitempty"`
		Licences []licence `json:"licenses"`
	}
	hash struct {
		Algorithm string `json:"alg"`
		Content   string `json:"content"`
	}
	licence struct {
		Licence struct {
			ID string `json:"id"`
		} `json:"license"`
	}
)

// cycloneDX is the bill of materials. It holds no time and no random number, which the standard allows.
func (b *binary) cycloneDX() ([]byte, error) {
	d := document{Format: "CycloneDX", Spec: "1.6", Version: 1, Metadata: metadata{b.parts[0].component("application")}}
	d.Metadata.Component.Hashes = []hash{{"SHA-256", hex.EncodeToString(b.sum[:])}}
	for _, p := range b.parts[1:] {
		d.Components = append(d.Components, p.component("library"))
	}
	text, err := json.MarshalIndent(d, "", "  ")
	return append(text, '\n'), err
}

func (p part) component(kind string) component {
	purl := fmt.Sprintf("pkg:golang/%s@%s", p.path, strings.ReplaceAll(p.version, "+", "%2B"))
	c := component{Ref: purl, Type: kind, Name: p.path, Version: p.version, Purl: purl}
	for _, name := range p.licences {
		var l licence
		l.Licence.ID = name
		c.Licences = append(c.Licences, l)
	}
	return c
}

// licenceTexts are all licences and notices, each under the module that it is of.
func (b *binary) licenceTexts() []byte {
	var out bytes.Buffer
	for _, p := range b.parts {
		for _, f := range p.files {
			title := fmt.Sprintf("%s %s: %s", p.path, p.version, f.name)
			fmt.Fprintf(&out, "%s\n%s\n\n%s\n\n", title, strings.Repeat("=", len(title)), strings.TrimSpace(f.text))
		}
	}
	return out.Bytes()
}
