#!/usr/bin/env bash
# Runs the commands of README.md and docs/, in order, each page in a fresh folder, with `lenet` on the PATH.
#
#     bash tests/docs.sh [PAGE…]
#
# The program is target/release/lenet, or what LENET names; then `cargo` lines are left out, too. A comment before a
# block says what else is to be done with it:
#
#     <!-- not run: REASON -->    it is left out, and the reason is printed
#     <!-- NAME command -->       .ci/run takes it from the page and runs it
#     <!-- in .ci/run -->         .ci/run has the same lines
#     <!-- in the checkout -->    it runs there
#     <!-- printed -->            every line of a `text` block was printed by the commands before it
#     <!-- network: FILE -->      a `toml` block is written to FILE, and `lenet summary --net FILE` takes it
#
# Commands that would take long are shortened by rule, where they do not say it themselves: see `lenet` below. The
# script also fails on a fence without a language, on a command of `lenet` in a block of another language, on a link
# to a file or heading that is not there, on a page that README.md does not link, on another version of Rust than
# Cargo.toml asks for, and on a README.md that grows.
set -euo pipefail
cd "$(dirname "$0")/.."
root=$PWD
program=${LENET:-${CARGO_TARGET_DIR:-target}/release/lenet}
program=$(realpath -e "$program") || { echo "no program: cargo build --release makes it" >&2; exit 1; }
longest=130 # lines of README.md
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
failures=0
fail() {
    echo "FAILED $*" >&2
    failures=$((failures + 1))
}

# The program, with limits: a few steps, no GPU that may be a slow software one, short measurements.
mkdir "$work/bin"
ln -s "$program" "$work/program"
cat >"$work/bin/lenet" <<END
#!/usr/bin/env bash
add() {
    local flag=\$1 given
    for given in "\${args[@]}"; do [[ \$given == "\$flag" || \$given == "\$flag="* ]] && return; done
    args+=("\$@")
}
args=("\$@")
case \${1:-} in
    train | sweep) add --steps 30 ;;
    lr-find) add --steps 60 ;;
    check)
        add --device cpu
        add --quick
        ;;
    # A thousand strings are twenty.
    read) args=("\${args[@]/#1000/20}") ;;
    bench)
        if [[ " \$* " != *" --model "* ]]; then
            add --device cpu
            add --seconds 0.02
        fi
        if [[ " \$* " == *" --growth "* ]]; then
            add --most-batch 64
            add --most-width 2
        fi
        ;;
esac
exec "$work/program" "\${args[@]}"
END
chmod +x "$work/bin/lenet"
export PATH="$work/bin:$PATH" CARGO_INSTALL_ROOT="$work/installed"

# Cuts a page into its blocks: prints `number language line comment` for each, and writes the text to FOLDER/NUMBER.
# Prints what is wrong with the fences to stderr.
blocks() {
    awk -v folder="$2" -v page="$1" '
        function wrong(what) { printf "%s:%d: %s\n", page, NR, what > "/dev/stderr"; bad = 1 }
        !inside && /^```/ {
            inside = 1; number++; language = substr($0, 4)
            if (language == "") { wrong("a fence without a language"); language = "none" }
            file = folder "/" number
            printf "" > file
            print number, language, NR, comment
            next
        }
        inside && /^```$/ { inside = 0; comment = ""; close(file); next }
        inside {
            print > file
            if (language != "sh" && /^(\$ )?lenet [a-z]/) wrong("a command of lenet in a block of " language)
            next
        }
        /^<!-- .* -->$/ { comment = substr($0, 6, length($0) - 9); next }
        /[^ ]/ { comment = "" }
        END { if (inside) wrong("a fence that does not end"); exit bad }' "$1"
}

# Anchors of a page's headings, as GitHub makes them.
anchors() {
    awk '/^```/ { inside = !inside } !inside && /^#+ / { sub(/^#+ /, ""); print tolower($0) }' "$1" |
        sed -e 's/[^a-z0-9 _-]//g' -e 's/ /-/g'
}

# Runs a file of commands in a folder, and keeps what they print in a third.
perform() {
    (cd "$2" && timeout 1200 bash -euo pipefail "$1") >"$3" 2>&1 </dev/null
}

page() {
    local page=$1 folder number language line comment cuts
    cuts=$work/pages/$(basename "$page" .md)
    folder=$cuts/home
    mkdir -p "$folder"
    ln -s "$root/assets" "$folder/assets"
    : >"$cuts/printed"
    # What stands for a folder of the reader's own pictures.
    for class in daisy tulip; do
        mkdir -p "$folder/flowers/$class"
        for i in $(seq 12); do
            { printf 'P6 40 30 255\n'; head -c 3600 /dev/urandom; } >"$folder/flowers/$class/$i.ppm"
        done
    done
    blocks "$page" "$cuts" >"$cuts/index" || fail "$page: its fences"
    while read -r number language line comment; do
        local at="$page:$line" block="$cuts/$number" before
        case "$language $comment" in
            *" not run: "*)
                echo "$at: not run: ${comment#not run: }"
                continue
                ;;
            "sh "*" command")
                echo "$at: .ci/run runs the $comment"
                grep -qF -- "<!-- $comment -->" .ci/run || fail "$at: .ci/run does not look for the $comment"
                ;;
            "sh in .ci/run")
                while read -r line; do
                    grep -qF -- "$line" .ci/run || fail "$at: .ci/run does not have: $line"
                done <"$block"
                ;;
            "sh in the checkout")
                if [ -n "${LENET:-}" ]; then
                    echo "$at: not run: the program was given"
                elif ! perform "$block" "$root" "$cuts/printed"; then
                    fail "$at:"
                    cat "$cuts/printed" >&2
                elif [ -x "$work/installed/bin/lenet" ]; then
                    ln -sf "$work/installed/bin/lenet" "$work/program"
                fi
                ;;
            "sh ")
                before=$SECONDS
                if ! perform "$block" "$folder" "$cuts/printed"; then
                    fail "$at:"
                    cat "$block" "$cuts/printed" >&2
                fi
                echo "$at: $((SECONDS - before)) s"
                ;;
            "text printed")
                while IFS= read -r line; do
                    grep -qxF -- "$line" "$cuts/printed" || fail "$at: not printed: $line"
                done <"$block"
                ;;
            "toml network: "*)
                cp "$block" "$folder/${comment#network: }"
                (cd "$folder" && lenet summary --net "${comment#network: }" >/dev/null </dev/null) || fail "$at: the network"
                ;;
            "toml "*) fail "$at: a toml block that is not said to be a network" ;;
            "rust ")
                grep -qF "include_str!(\"../$page\")" src/lib.rs || fail "$at: no test of the documentation has this"
                ;;
            "text " | "js " | "mermaid ") ;;
            *) fail "$at: a block of $language with the comment “$comment”, which this script does not know" ;;
        esac
    done <"$cuts/index"

    # Links, those of pictures among them, to files of the checkout.
    local target file
    while read -r target; do
        case $target in http:* | https:* | mailto:*) continue ;; esac
        file=${target%%#*}
        if [ -n "$file" ]; then file=$(dirname "$page")/$file; else file=$page; fi
        [ -e "$file" ] || fail "$page: a link to $target, which is not there"
        if [[ $target == *#* && $file == *.md && -e $file ]]; then
            anchors "$file" | grep -xF -- "${target#*#}" >/dev/null || fail "$page: no heading for the link to $target"
        fi
    done < <(awk '/^```/ { inside = !inside } !inside' "$page" | grep -oE '\]\([^) ]+\)' | sed -e 's/^](//' -e 's/)$//')
}

pages=("$@")
[ $# -gt 0 ] || pages=(README.md docs/*.md)
for each in "${pages[@]}"; do page "$each"; done

lines=$(wc -l <README.md)
[ "$lines" -le "$longest" ] || fail "README.md: $lines lines, expected at most $longest"
version=$(sed -n 's/^rust-version = "\(.*\)"/\1/p' Cargo.toml)
for each in README.md src/embedding.md; do
    grep -qF "Rust $version or later" "$each" || fail "$each does not ask for Rust $version or later"
done
for each in docs/*.md; do
    grep -qF "]($each" README.md || fail "README.md does not link $each"
done

[ "$failures" = 0 ] || { echo "$failures failures" >&2; exit 1; }
echo "all is well: ${#pages[@]} pages, ${SECONDS} s"
