#include "colour.h"

#include "commands.h"

#include <stdarg.h>
#include <stdlib.h>
#include <unistd.h>

#define KEY   "\033[1;34m"
#define TEXT  "\033[32m"
#define OTHER "\033[33m"
#define WRONG "\033[1;31m"
#define PLAIN "\033[0m"

bool cli_has_colour(FILE *file)
{
    const char *no = getenv("NO_COLOR"), *term = getenv("TERM");
    return isatty(fileno(file)) && !(no && *no) && term && *term && strcmp(term, "dumb") != 0;
}

void cli_complain(const char *format, ...)
{
    bool colour = cli_has_colour(stderr);
    va_list arguments;
    (void)fprintf(stderr, "%srpcrew:%s ", colour ? WRONG : "", colour ? PLAIN : "");
    va_start(arguments, format);
    (void)vfprintf(stderr, format, arguments);
    va_end(arguments);
}

/* The length of the string, or the number or word, that the text begins with. */
static size_t token_size(crew_string text)
{
    size_t size = 1;
    if (*text.data != '"') {
        while (size < text.size && !strchr(",:]} \n", text.data[size]))
            size++;
        return size;
    }
    while (size < text.size && text.data[size] != '"')
        size += text.data[size] == '\\' ? 2 : 1;
    return size < text.size ? size + 1 : text.size;
}

void cli_print_json(crew_string json, FILE *file)
{
    if (!cli_has_colour(file)) {
        cli_print_safely(json, true, file);
        return;
    }
    while (json.size) {
        bool is_mark = strchr("{}[],: \n", *json.data) != NULL;
        size_t size = is_mark ? 1 : token_size(json);
        bool is_text = *json.data == '"', is_key = is_text && size < json.size && json.data[size] == ':';
        if (!is_mark)
            (void)fputs(is_key ? KEY : is_text ? TEXT : OTHER, file);
        cli_print_safely((crew_string){ json.data, size }, true, file);
        if (!is_mark)
            (void)fputs(PLAIN, file);
        json = (crew_string){ json.data + size, json.size - size };
    }
}
