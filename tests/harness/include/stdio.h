#pragma once
typedef struct file FILE;
extern FILE *const stderr;
int fprintf(FILE *, const char *, ...);
int fflush(FILE *);
