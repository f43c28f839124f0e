/* Colours, where a terminal is that wants them. */
#ifndef CLI_COLOUR_H
#define CLI_COLOUR_H

#include <rpcrew.h>

#include <stdio.h>

/* A terminal, unless NO_COLOR is set and not empty, or TERM is dumb or not set. */
bool cli_has_colour(FILE *file);

/* JSON text as crew_json_encode writes it: keys, strings, and all else, each in a colour of its own. What
 * would control the terminal is shown as cli_print_safely does. */
void cli_print_json(crew_string json, FILE *file);

/* "rpcrew: " and the words, to standard error. */
void cli_complain(const char *format, ...) CREW_PRINTF(1, 2);

#endif
