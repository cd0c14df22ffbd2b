/** What to tell people of an error that fetch() or reading its answer threw. */
export function explain(failure) {
  if (failure.name === 'TimeoutError') return 'The server took too long. Please try again.';
  if (failure instanceof SyntaxError) return 'The image server gave no proper answer. Is it running?';
  return 'The image server can’t be reached. Please try again.';
}
