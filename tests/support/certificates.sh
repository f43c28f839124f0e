#!/bin/sh
# An authority and certificates by it, for tests: usage: certificates.sh FOLDER
# server (localhost, 127.0.0.1), other (another host's), old (of last year), alice (a caller's), and mallory, by nobody.
set -eu
mkdir -p "$1"
cd "$1"
new_key() {
    openssl req "$@" -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes 2>/dev/null
}
certify() { # NAME SUBJECT NAMES [OPTIONS…]
    name=$1 subject=$2 names=$3
    shift 3
    new_key -keyout "$name.key" -out "$name.csr" -subj "$subject"
    printf '%s\n' "subjectAltName=$names" basicConstraints=CA:FALSE authorityKeyIdentifier=keyid \
        subjectKeyIdentifier=hash >extensions
    openssl x509 -req -in "$name.csr" -CA ca.pem -CAkey ca.key -CAcreateserial -out "$name.pem" \
        -extfile extensions "$@" 2>/dev/null
}
new_key -x509 -keyout ca.key -out ca.pem -subj "/CN=Authority of tests" -days 30 \
    -addext keyUsage=critical,keyCertSign,cRLSign -addext subjectKeyIdentifier=hash
certify server "/CN=server" "DNS:localhost,IP:127.0.0.1" -days 30
certify other "/CN=other" "DNS:other.example" -days 30
certify alice "/CN=Alice" "email:alice@example.org" -days 30
mkdir -p demo && : >demo/index && echo 01 >demo/serial
new_key -keyout old.key -out old.csr -subj "/CN=old" -addext "subjectAltName=DNS:localhost,IP:127.0.0.1"
cat >demo/config <<'CONFIG'
[ca]
default_ca = all
[all]
database = demo/index
serial = demo/serial
new_certs_dir = demo
policy = any
copy_extensions = copy
default_md = sha256
[any]
commonName = supplied
CONFIG
openssl ca -batch -config demo/config -cert ca.pem -keyfile ca.key -in old.csr -out old.pem -notext \
    -startdate 20240101000000Z -enddate 20250101000000Z 2>/dev/null
new_key -x509 -keyout mallory.key -out mallory.pem -subj "/CN=Mallory" -addext "subjectAltName=DNS:localhost" -days 30
