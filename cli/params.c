/* Words to values. */
#include "params.h"

#include <rpcrew/impl/memory.h>

#include <ctype.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>

enum { CHUNK = 1 << 16, FILE_MOST = 256 << 20 };

/* The length of "name" in "name=…"; 0 if the word is none of that kind. */
static size_t name_length(const char *word)
{
    size_t size = 0;
    while (isalnum((unsigned char)word[size]) || word[size] == '_' || (size && word[size] == '-'))
        size++;
    return word[size] == '=' && !isdigit((unsigned char)word[0]) ? size : 0;
}

static crew_status read_all(FILE *file, const char *name, crew_buffer *bytes, crew_error *why)
{
    while (!feof(file) && !ferror(file)) {
        char *place = crew_buffer_extend(bytes, CHUNK);
        if (!place)
            return crew_error_set(why, CREW_NO_MEMORY, "no memory");
        bytes->size -= CHUNK - fread(place, 1, CHUNK, file);
        if (bytes->size > FILE_MOST)
            return crew_error_set(why, CREW_LIMIT, "%s: more than %d bytes", name, FILE_MOST);
    }
    return ferror(file) ? crew_error_set(why, CREW_BAD_ARGUMENT, "%s: %s", name, strerror(errno)) : CREW_OK;
}

/* A string if JSON can say it, else bytes. */
static crew_status value_of_bytes(crew_arena *arena, crew_string bytes, bool as_bytes,
                                  const crew_value **value)
{
    crew_bytes probe;
    if (as_bytes)
        return crew_pack(arena, value, "y%", bytes.data, bytes.size);
    crew_status status = crew_pack(arena, value, "S", bytes);
    if (status != CREW_OK)
        return status;
    status = crew_json_encode(*value, CREW_JSON_COMPACT, &probe);
    if (status == CREW_MALFORMED)
        return crew_pack(arena, value, "y%", bytes.data, bytes.size);
    if (status == CREW_OK)
        crew_bytes_free(&probe);
    return status;
}

static crew_status value_of_file(crew_arena *arena, const char *name, bool as_bytes, const crew_value **value,
                                 crew_error *why)
{
    static bool stdin_read;
    crew_buffer bytes = { 0 };
    bool standard = strcmp(name, "-") == 0;
    if (standard && stdin_read)
        return crew_error_set(why, CREW_BAD_ARGUMENT, "-: standard input can be read once");
    stdin_read |= standard;
    FILE *file = standard ? stdin : fopen(name, "rb");
    if (!file)
        return crew_error_set(why, CREW_BAD_ARGUMENT, "%s: %s", name, strerror(errno));
    crew_status status = read_all(file, name, &bytes, why);
    if (!standard)
        (void)fclose(file);
    if (status == CREW_OK && value_of_bytes(arena, crew_buffer_string(&bytes), as_bytes, value) != CREW_OK)
        status = crew_error_set(why, CREW_NO_MEMORY, "no memory");
    crew_buffer_fini(&bytes);
    return status;
}

static crew_status value_of_word(crew_arena *arena, const char *word, bool as_bytes, const crew_value **value,
                                 crew_error *why)
{
    if (strcmp(word, "-") == 0)
        return value_of_file(arena, word, as_bytes, value, why);
    if (word[0] == '@')
        return value_of_file(arena, word + 1, as_bytes, value, why);
    crew_status status = crew_json_decode(crew_str(word), NULL, arena, value, why);
    if (status != CREW_MALFORMED)
        return status;
    return crew_pack(arena, value, "s", word);
}

crew_status cli_params(crew_arena *arena, char *const *words, size_t count, bool as_bytes,
                       const crew_value **params, crew_error *why)
{
    *params = NULL;
    if (count == 0)
        return CREW_OK;
    bool named = name_length(words[0]) > 0;
    crew_value *made = NULL;
    crew_status status = named ? crew_object_new(arena, &made) : crew_array_new(arena, &made);
    for (size_t i = 0; i < count && status == CREW_OK; i++) {
        size_t name = name_length(words[i]);
        const crew_value *value = NULL;
        if (named != (name > 0))
            return crew_error_set(
                why, CREW_BAD_ARGUMENT,
                "'%s': params are all name=value or none; a string with = in it goes as '\"a=b\"'", words[i]);
        for (size_t before = 0; named && before < i; before++)
            if (name_length(words[before]) == name && strncmp(words[before], words[i], name) == 0)
                return crew_error_set(why, CREW_BAD_ARGUMENT, "'%s': that name is given twice", words[i]);
        status = value_of_word(arena, words[i] + (named ? name + 1 : 0), as_bytes, &value, why);
        if (status != CREW_OK)
            return status;
        status = named ? crew_object_add(arena, made, (crew_string){ words[i], name }, value)
                       : crew_array_add(arena, made, value);
    }
    if (status != CREW_OK)
        return crew_error_set(why, status, "no memory");
    *params = made;
    return CREW_OK;
}
