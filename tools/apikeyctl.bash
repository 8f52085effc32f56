# Completion of apikeyctl(1) in bash: verbs, options, what an option can be, files. Names of keys, plans, owners and
# scopes are not looked up: that would read the whole store at a press of a key.
# shellcheck shell=bash

# What may stand before the verb and behind it.
_apikeyctl_globals='--config --store --directory --instance --output --help'

# The options of a verb.
_apikeyctl_options() {
    case $1 in
        issue) echo --environment --owner --name --expires --metadata --tag --plan --scope --address --limit ;;
        list) echo --owner --state --environment --plan --tag --unused --expiring --limit --after ;;
        update) echo --owner --name --expires --metadata --tag --plan --scope --address --limit --drop-limit --clear ;;
        disable | enable | revoke) echo --wait ;;
        fleet) echo --forget ;;
        rotate) echo --grace ;;
        import) echo --form --allow-weak ;;
        export) echo --form ;;
        migrate) echo --merge ;;
        backup) echo --replace ;;
        restore) echo --keep-revoked --accept-revoked ;;
        'plan create') echo --limit ;;
        'plan update') echo --limit --drop-limit ;;
        'owner create') echo --plan ;;
        'owner update') echo --plan --clear ;;
        explain) echo --scope --address --environment --cost ;;
        usage) echo --owner --plan --code --group-by --since --until --by --chart --no-flush --fleet ;;
        reload) echo --force ;;
        top) echo --interval --iterations --keys --sort ;;
        capacity) echo --text --owners --limits ;;
        gen) echo --keys --plain --environment --owners ;;
    esac
}

# What an option of a verb can be; nothing for what is not a list.
_apikeyctl_values() {
    case "$1 $2" in
        *' --output') echo table json csv ;;
        *' --store') echo yaml: sqlite: postgresql: ;;
        *' --wait') echo host fleet ;;
        'list --state') echo active disabled revoked expired ;;
        'import --form' | 'export --form') echo csv jsonl ;;
        'update --clear') echo owner name expires metadata plan scopes addresses tags ;;
        'owner update --clear') echo plan ;;
        'usage --group-by') echo key owner plan code host ;;
        'usage --by') echo minute hour day ;;
        'top --sort') echo total allowed denied ;;
    esac
}

_apikeyctl() {
    local word=${COMP_WORDS[COMP_CWORD]} previous=${COMP_WORDS[COMP_CWORD - 1]} verb='' i
    local nouns='plan owner scope' flags=' --help --version --merge --allow-weak --replace --keep-revoked --accept-revoked
        --chart --no-flush --fleet --force '
    local verbs="issue list show update disable enable revoke rotate regenerate delete import export migrate backup restore
        $nouns verify explain usage reload status top doctor fleet capacity gen"
    COMPREPLY=()
    # The verb is the first word that is no option and not what an option wants.
    for ((i = 1; i < COMP_CWORD; ++i)); do
        case ${COMP_WORDS[i]} in
            -*) [[ $flags == *" ${COMP_WORDS[i]} "* || ${COMP_WORDS[i + 1]} == '=' ]] || ((++i)) ;;
            '=' | ':') ((++i)) ;;
            *)
                verb+=${verb:+ }${COMP_WORDS[i]}
                [[ " $nouns " == *" $verb "* ]] || break
                ;;
        esac
    done
    # Bash takes `--output=json` and `yaml:PATH` for three words.
    if [[ $word == '=' || $word == ':' ]]; then
        previous=$word word=''
    fi
    case $previous in
        '=') previous=${COMP_WORDS[COMP_CWORD - (${#word} == 0 && ${#COMP_WORDS[COMP_CWORD]} != 0 ? 1 : 2)]} ;;
        ':') mapfile -t COMPREPLY < <(compgen -f -- "$word") && return ;;
    esac
    case $previous in
        --config | -c | --keys | --plain)
            [[ "$verb $previous" == 'top --keys' ]] || mapfile -t COMPREPLY < <(compgen -f -- "$word")
            return
            ;;
        --directory) mapfile -t COMPREPLY < <(compgen -d -- "$word") && return ;;
        -*)
            if [[ $flags != *" $previous "* ]]; then
                mapfile -t COMPREPLY < <(compgen -W "$(_apikeyctl_values "$verb" "$previous")" -- "$word")
                # What goes on behind the colon is no word of its own.
                [[ $previous != --store ]] || compopt -o nospace 2> /dev/null
                return
            fi
            ;;
    esac
    if [[ $word == -* ]]; then
        mapfile -t COMPREPLY < <(compgen -W "$(_apikeyctl_options "$verb") $_apikeyctl_globals" -- "$word")
        [[ -n $verb ]] || mapfile -t -O ${#COMPREPLY[@]} COMPREPLY < <(compgen -W --version -- "$word")
        return
    fi
    case $verb in
        '') mapfile -t COMPREPLY < <(compgen -W "$verbs" -- "$word") ;;
        plan | owner) mapfile -t COMPREPLY < <(compgen -W 'list show create update delete' -- "$word") ;;
        scope) mapfile -t COMPREPLY < <(compgen -W 'list create delete' -- "$word") ;;
        migrate)
            mapfile -t COMPREPLY < <(compgen -W 'yaml: sqlite:' -- "$word")
            compopt -o nospace 2> /dev/null
            ;;
        backup | restore) mapfile -t COMPREPLY < <(compgen -f -- "$word") ;;
    esac
}

complete -o filenames -F _apikeyctl apikeyctl
