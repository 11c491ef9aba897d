/* JSON as a tree. Whatever is made here lives until json_free_all(). Any thread. */
#ifndef SCENARIO_JSON_H
#define SCENARIO_JSON_H

#include <stddef.h>

typedef enum kind { KIND_NULL, KIND_BOOLEAN, KIND_NUMBER, KIND_STRING, KIND_LIST, KIND_OBJECT } kind;

typedef struct json {
    kind kind;
    int boolean;
    double number;
    char *text; /* of a string, NUL-terminated */
    char **keys;
    struct json **items; /* of a list or an object */
    size_t count;
} json;

void *keep(size_t size);                      /* zeroed memory */
char *format(const char *form, ...);          /* as printf */
json *json_parse(const char *text, size_t n); /* null for what is no JSON, and for NULL */
char *json_text(const json *value);
void json_free_all(void);

json *json_null(void);
json *json_boolean(int boolean);
json *json_number(double number);
json *json_string(const char *text, size_t n); /* null for NULL */
json *json_list(void);
json *json_object(void);
json *json_add(json *list, json *item);                     /* the list */
json *json_set(json *object, const char *key, json *value); /* the object */

/* The field, null where there is none. */
json *json_get(const json *object, const char *key);
/* A string, or NULL. */
const char *json_word(const json *object, const char *key);
/* A number, or what to take without one. */
double json_amount(const json *object, const char *key, double without);

/* Why a value does not fit a pattern; NULL when it does. */
char *pattern_mismatch(const json *pattern, const json *value, const char *at);
json *pattern_pointer(json *value, const char *path);
/* The value with the names of `saved` put in. */
json *pattern_fill(const json *value, const json *saved);

#endif
