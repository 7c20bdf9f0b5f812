#!/bin/sh
# Makes cert.pem (a certificate for 127.0.0.1) and server.pem (the same with its key). For these tests only: nobody else
# trusts it. Valid from 2020 to 2120, whatever the clock says where it is made: hence `openssl ca`.
set -eu
cd "$(dirname "$0")"
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
: >"$work/index"
cat >"$work/ca.cnf" <<END
[ca]
default_ca = this
[this]
database = $work/index
new_certs_dir = $work
rand_serial = yes
default_md = sha256
policy = any
x509_extensions = both
[any]
commonName = supplied
[both]
basicConstraints = critical,CA:TRUE
keyUsage = critical,digitalSignature,keyCertSign
subjectKeyIdentifier = hash
subjectAltName = IP:127.0.0.1,DNS:localhost
END
openssl req -new -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -keyout "$work/key.pem" -out "$work/req.pem" -subj "/CN=loopback of the tests"
openssl ca -batch -selfsign -notext -config "$work/ca.cnf" -keyfile "$work/key.pem" -in "$work/req.pem" -out cert.pem \
  -startdate 20200101000000Z -enddate 21200101000000Z
cat "$work/key.pem" cert.pem >server.pem
