/* A request as another server hands it on, by variables (RFC 3875): CGI's environment, FastCGI's params. */
#ifndef TRANSPORT_CGI_REQUEST_H
#define TRANSPORT_CGI_REQUEST_H

#include "transport/http_message.h"

/* Writes a request's head from its variables: pairs of name and value, in a row, each with a NUL behind it.
 * Its body is the caller's to fill. False: there is no memory, or status and why say what is wrong with them.
 */
bool cgi_read_request(struct http_message *message, crew_string variables);

#endif
