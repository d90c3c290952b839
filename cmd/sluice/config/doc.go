// Package config turns flags and a KubeProxyConfiguration file into one checked configuration, which nothing changes any
// more. It knows kube-proxy's names, defaults and rules of precedence, and it touches nothing but the file.
package config
