#!/bin/sh
# Make what docker-compose.yml needs to start: passwords and keys, each in a file of its own. What is there stays.
#
#   sh deploy/make_secrets.sh [FOLDER]     # ./secrets
#
# Only you can enter the folder. Its files may be read by all, since in a container another user reads them:
# each container gets those alone that docker-compose.yml names for it.
set -eu
folder=${1:-secrets}
mkdir -p "$folder/host"
chmod 700 "$folder"
umask 022

# A file with what the command after its name prints, unless it is there.
make() {
    name=$1
    shift
    [ -s "$folder/$name" ] || "$@" > "$folder/$name"
}
password() { head -c 24 /dev/urandom | od -An -tx1 | tr -d ' \n'; }
key() { printf '%s:%s' "$(date -u +%Y-%m)" "$(head -c 32 /dev/urandom | base64 | tr -d '\n')"; }
login() { printf 'admin:%s' "$(password)"; }

# The text of a file as an address takes it: each byte is written as %XX, unless all are letters and digits.
quoted() {
    text=$(cat "$folder/$1")
    case $text in
        *[!A-Za-z0-9]*) printf %s "$text" | od -An -v -tx1 | tr -d ' \n' | sed 's/../%&/g' ;;
        *) printf %s "$text" ;;
    esac
}

make valkey_password password
make valkey_admin_password password
make postgres_owner_password password
make postgres_app_password password
make grafana_password password
make flower_basic_auth login
make conventions_message_keys key
make conventions_audit_keys key
make conventions_payload_keys key
make conventions_name_keys key

# What you may have: a password of the mail server, addresses that let in who knows them. An empty file says nothing.
for name in smtp_password webhook_url alert_webhook alert_urls heartbeat_url; do
    [ -e "$folder/conventions_$name" ] || : > "$folder/conventions_$name"
done

# Addresses have passwords in them: they are made anew each time.
valkey=redis://conventions:$(quoted valkey_password)
printf '%s@valkey:6379/0' "$valkey" > "$folder/conventions_broker_url"
printf '%s@127.0.0.1:%s/0' "$valkey" "${CONVENTIONS_VALKEY_PORT:-6379}" > "$folder/host/conventions_broker_url"
printf 'postgresql://conventions_app:%s@postgres:5432/conventions' "$(quoted postgres_app_password)" > "$folder/conventions_database_url"
printf 'postgresql://conventions:%s@postgres:5432/conventions' "$(quoted postgres_owner_password)" > "$folder/owner_database_url"

# What a program on this machine needs to send: CONVENTIONS_SECRETS_DIR=secrets/host
for name in conventions_message_keys conventions_payload_keys conventions_name_keys; do
    cp "$folder/$name" "$folder/host/$name"
done
echo "$folder has passwords and keys. The login of Flower is in $folder/flower_basic_auth."
