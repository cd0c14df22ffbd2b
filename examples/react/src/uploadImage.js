const STALLED_MS = 60_000;

/**
 * Upload a file; resolves to the server's answer. `onProgress` is told the part sent, 0 to 1.
 *
 * XMLHttpRequest and not fetch(), which says nothing about upload progress.
 */
export function uploadImage(file, onProgress) {
  return new Promise((resolve, reject) => {
    const request = new XMLHttpRequest();
    let timer = 0;
    const fail = (message) => () => {
      clearTimeout(timer);
      reject(new Error(message));
    };
    const waitOn = () => {
      clearTimeout(timer);
      timer = setTimeout(() => request.abort(), STALLED_MS);
    };
    request.open('POST', '/api/images');
    request.responseType = 'json';
    request.upload.onprogress = ({ loaded, total }) => {
      waitOn();
      onProgress(loaded / total);
    };
    request.onload = () => {
      const answer = request.response;
      if (answer?.success) resolve(answer);
      else reject(new Error(answer?.message ?? `The server answered with status ${request.status}.`));
      clearTimeout(timer);
    };
    request.onerror = fail('The image server can’t be reached. Please try again.');
    request.onabort = fail('The upload stood still for a minute and was given up. Please try again.');
    const form = new FormData();
    form.append('image', file);
    waitOn();
    request.send(form);
  });
}
