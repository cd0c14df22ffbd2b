/** Return a message for an error from fetch() or from parsing its response. */
export function explain(failure) {
  if (failure.name === 'TimeoutError') return 'The server took too long. Please try again.';
  if (failure instanceof SyntaxError) return 'The image server sent an invalid response. Is it running?';
  return 'The image server can’t be reached. Please try again.';
}
