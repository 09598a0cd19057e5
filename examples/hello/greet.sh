# The value of a variable reaches a job as an environment variable.
printf 'hello, %s\n' "$whom" | tee greeting.txt
