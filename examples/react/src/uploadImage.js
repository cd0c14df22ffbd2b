const STALLED_MS = 60_000;

/**
 * Upload a file. Resolves to the server's JSON. `onProgress` is called with the fraction sent, from 0 to 1.
 *
 * This uses XMLHttpRequest, because fetch() does not report upload progress.
 */
export function uploadImage(file, onProgress) {
  return new Promise((resolve, reject) => {
    const request = new XMLHttpRequest();
    let timer = 0;
    const fail = (message) => () => {
      clearTimeout(timer);
      reject(new Error(message));
    };
    const restartTimer = () => {
      clearTimeout(timer);
      timer = setTimeout(() => request.abort(), STALLED_MS);
    };
    request.open('POST', '/api/images');
    request.responseType = 'json';
    request.upload.onprogress = ({ loaded, total }) => {
      restartTimer();
      onProgress(loaded / total);
    };
    request.onload = () => {
      const result = request.response;
      if (result?.success) resolve(result);
      else reject(new Error(result?.message ?? `The server responded with status ${request.status}.`));
      clearTimeout(timer);
    };
    request.onerror = fail('The image server can’t be reached. Please try again.');
    request.onabort = fail('The upload made no progress for a minute. Please try again.');
    const form = new FormData();
    form.append('image', file);
    restartTimer();
    request.send(form);
  });
}
