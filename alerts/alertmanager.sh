#!/bin/sh
# Start Alertmanager from alertmanager.yaml beside this file, with the ways to people that are set.
#
# A way is set by a variable, or by a file of its name in lower case, without WATCHKEEP_, in WATCHKEEP_SECRETS_DIR:
#   WATCHKEEP_ALERTS_WEBHOOK_URL    every notification as JSON, by POST
#   WATCHKEEP_ALERTS_SLACK_URL      an incoming webhook of Slack (or of what understands the same)
#   WATCHKEEP_ALERTS_EMAIL_TO       with WATCHKEEP_ALERTS_SMTP (host:port); and WATCHKEEP_ALERTS_EMAIL_FROM,
#                                   WATCHKEEP_ALERTS_SMTP_USER, _SMTP_PASSWORD, _SMTP_TLS (default true)
#   WATCHKEEP_ALERTS_WATCHDOG_URL   something outside that shouts when the Watchdog no longer comes
# Alertmanager expands no variables: what is set goes into files that only this user can read, in
# WATCHKEEP_ALERTMANAGER_RUN, never into arguments, and no longer stands in the environment of Alertmanager.
#
# Usage: alertmanager.sh [ARGUMENT OF ALERTMANAGER]...
set -eu
umask 077

fail() {
    printf 'alertmanager.sh: %s\n' "$1" >&2
    exit 78
}

here=$(cd "$(dirname "$0")" && pwd)
run=${WATCHKEEP_ALERTMANAGER_RUN:-}
[ -n "$run" ] || fail 'set WATCHKEEP_ALERTMANAGER_RUN to a folder that this user can write to'
mkdir -p "$run" 2>/dev/null || fail "cannot make the folder $run: let WATCHKEEP_ALERTMANAGER_RUN name one that can be written to"
run=$(cd "$run" && pwd)
rm -rf "$run/templates" "$run/webhook_url" "$run/slack_url" "$run/smtp_password" "$run/watchdog_url" 2>/dev/null || true
(: >"$run/alertmanager.yaml") 2>/dev/null || fail "cannot write into $run: let WATCHKEEP_ALERTMANAGER_RUN name a folder that can be written to"
cp -R "$here/templates" "$run/templates"

# Put the value of WATCHKEEP_<name> into $value: the variable, or else the first line of the secret file.
setting() {
    eval "value=\${WATCHKEEP_$1:-}"
    unset "WATCHKEEP_$1"
    if [ -z "$value" ] && [ -n "${WATCHKEEP_SECRETS_DIR:-}" ]; then
        file=$WATCHKEEP_SECRETS_DIR/$(printf '%s' "$1" | tr '[:upper:]' '[:lower:]')
        if [ -e "$file" ]; then
            [ -r "$file" ] || fail "cannot read $file: make it readable for this user"
            IFS= read -r value <"$file" || true
        fi
    fi
    case $value in *'
'*) fail "WATCHKEEP_$1 has more than one line" ;; esac
}

url() {
    setting "$1"
    case $value in
        '' | http://?* | https://?*) ;;
        *) fail "WATCHKEEP_$1 is no URL: it begins with http:// or https://" ;;
    esac
}

# Put a value into YAML's single quotes: a quote in it is doubled.
quoted=
quote() {
    rest=$1 quoted=
    while :; do
        case $rest in
            *"'"*) quoted=$quoted${rest%%"'"*}"''" rest=${rest#*"'"} ;;
            *) quoted=$quoted$rest && break ;;
        esac
    done
}

# Print a file with a value for each placeholder; a line whose value is empty is left out.
render() {
    while IFS= read -r line; do
        case $line in
            *@*@*)
                name=${line#*@} && name=${name%%@*}
                case $name in
                    RUN) put=$run ;;
                    EMAIL_TO) put=$to ;;
                    EMAIL_FROM) put=$from ;;
                    SMTP) put=$smtp ;;
                    SMTP_TLS) put=$tls ;;
                    SMTP_USER) put=$user ;;
                    SMTP_PASSWORD_FILE) put=$password_file ;;
                    *) fail "unknown placeholder @$name@ in $1" ;;
                esac
                [ -n "$put" ] || continue
                quote "$put"
                line=${line%%"@$name@"*}$quoted${line#*"@$name@"}
                ;;
        esac
        printf '%s\n' "$line"
    done <"$1"
}

url ALERTS_WEBHOOK_URL && webhook=$value
url ALERTS_SLACK_URL && slack=$value
url ALERTS_WATCHDOG_URL && watchdog=$value
setting ALERTS_EMAIL_TO && to=$value
setting ALERTS_EMAIL_FROM && from=${value:-watchkeep@localhost}
setting ALERTS_SMTP && smtp=$value
setting ALERTS_SMTP_TLS && tls=${value:-true}
setting ALERTS_SMTP_USER && user=$value
setting ALERTS_SMTP_PASSWORD && password=$value
password_file=

[ -z "$to" ] || [ -n "$smtp" ] || fail 'WATCHKEEP_ALERTS_EMAIL_TO is set, but WATCHKEEP_ALERTS_SMTP (host:port of the mail server) is not'
case $tls in true | false) ;; *) fail 'WATCHKEEP_ALERTS_SMTP_TLS is neither true nor false' ;; esac

{
    while IFS= read -r base; do
        printf '%s\n' "$base"
        if [ -n "$watchdog" ] && [ "$base" = '  - name: watchdog' ]; then
            printf '%s\n' "$watchdog" >"$run/watchdog_url"
            render "$here/receivers/watchdog.yaml"
        fi
    done <"$here/alertmanager.yaml"
    if [ -n "$webhook" ]; then
        printf '%s\n' "$webhook" >"$run/webhook_url"
        render "$here/receivers/webhook.yaml"
    fi
    if [ -n "$slack" ]; then
        printf '%s\n' "$slack" >"$run/slack_url"
        render "$here/receivers/slack.yaml"
    fi
    if [ -n "$to" ]; then
        if [ -n "$password" ]; then
            password_file=$run/smtp_password
            printf '%s' "$password" >"$password_file"
        fi
        render "$here/receivers/email.yaml"
    fi
} >"$run/alertmanager.yaml"

exec "${WATCHKEEP_ALERTMANAGER_BIN:-alertmanager}" "$@" --config.file="$run/alertmanager.yaml"
