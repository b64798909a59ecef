#!/bin/sh
# Before the servers start in containers: each finds a folder that it can write to, and the secrets that it can read.
#
#   init.sh DATA SECRETS GIVEN USER
#
#   DATA     folder with one folder per server; they will belong to USER
#   SECRETS  gets a copy of every file in GIVEN, readable by USER only, and Grafana's password, made once
#   GIVEN    the secrets of whoever runs this (alerts_webhook_url, ..., grafana_admin_password); may be empty
set -eu
umask 077

data=$1 secrets=$2 given=$3 user=$4
password=$secrets/grafana_admin_password

for folder in "$data"/*/; do
    chown "$user:$user" "$folder"
    chmod 0700 "$folder"
done

# A secret that was taken away is gone here too; only the password that was made here stays.
for file in "$secrets"/*; do
    [ "$file" = "$password" ] || rm -f "$file"
done
for file in "$given"/*; do
    [ ! -f "$file" ] || cp "$file" "$secrets/"
done
if [ ! -s "$password" ]; then
    head -c 512 /dev/urandom | tr -dc 'A-Za-z0-9' | head -c 32 >"$password.new"
    [ "$(wc -c <"$password.new")" -ge 24 ] || { echo "init.sh: /dev/urandom gives too little for a password" >&2; exit 1; }
    mv "$password.new" "$password"
fi
for file in "$secrets"/*; do
    chown "$user:$user" "$file"
    chmod 0600 "$file"
done
chown "$user:$user" "$secrets"
chmod 0700 "$secrets"
