#!/bin/sh
# An ssh that goes nowhere: its last argument is run by a shell right here. LOCAL_SSH_SHELL names another login shell,
# LOCAL_SSH_SAYS is what that shell's start-up file prints, LOCAL_SSH_LOG gets a line for each call.
for last; do :; done
[ -z "$LOCAL_SSH_LOG" ] || echo "$*" >>"$LOCAL_SSH_LOG"
case " $* " in *" -O "*) exit 255 ;; esac
printf '%s' "$LOCAL_SSH_SAYS"
exec "${LOCAL_SSH_SHELL:-sh}" -c "$last"
