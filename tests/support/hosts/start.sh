#!/bin/sh
# First process of a test host: a fresh host key, the client's key for alice, then sshd in the foreground.
set -eu
test -f /etc/ssh/ssh_host_ed25519_key || ssh-keygen -q -t ed25519 -N '' -f /etc/ssh/ssh_host_ed25519_key
install -d -m 0700 -o alice -g alice /home/alice/.ssh
printf '%s\n' "$CLIENT_KEY" > /home/alice/.ssh/authorized_keys
chown alice:alice /home/alice/.ssh/authorized_keys
chmod 0600 /home/alice/.ssh/authorized_keys
unset CLIENT_KEY
exec /usr/sbin/sshd -D -e
