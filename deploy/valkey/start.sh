#!/bin/sh
# Start Valkey, or Redis, with users of its own, whose passwords are files of secrets. The arguments are its options.
set -eu

hash() { printf '#%s' "$(tr -d '\n' < "/run/secrets/$1" | sha256sum | cut -d ' ' -f 1)"; }

sed -e '/^#/d' \
    -e "s/@conventions@/$(hash valkey_password)/" \
    -e "s/@admin@/$(hash valkey_admin_password)/" \
    -e "s/@prefix@/${CONVENTIONS_KEY_PREFIX:-conventions}/g" \
    /etc/conventions/users.acl > /tmp/users.acl

server=$(basename "$(command -v valkey-server || command -v redis-server)")
# Through the image's entry point, where it has one: that is what leaves root.
exec $(command -v docker-entrypoint.sh) "$server" --aclfile /tmp/users.acl "$@"
