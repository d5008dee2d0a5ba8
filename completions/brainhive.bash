_brainhive_completion() {
    local IFS=$'\n' line="${COMP_LINE:0:COMP_POINT}" words last start
    # words as they are typed, which bash splits at = and :
    IFS=' ' read -ra words <<< "$line"
    [[ $line == *' ' ]] && words+=('')
    last="${words[${#words[@]}-1]}"
    COMPREPLY=( $( env COMP_WORDS="$line" \
                   COMP_CWORD=$((${#words[@]}-1)) \
                   _BRAINHIVE_COMPLETE=complete_bash $1 ) )
    # bash replaces what stands behind the last of them
    start="${last%"${last##*[$COMP_WORDBREAKS]}"}"
    COMPREPLY=( "${COMPREPLY[@]#"$start"}" )
    # a value follows a key without a space
    [[ ${COMPREPLY[0]} == *= ]] && compopt -o nospace 2> /dev/null
    return 0
}

complete -o default -F _brainhive_completion brainhive
