import { useState } from 'react';

import Image from './Image.jsx';
import { uploadImage } from './uploadImage.js';

function ImageUploader() {
  const [uploads, setUploads] = useState([]);

  const update = (id, change) =>
    setUploads((all) => all.map((upload) => (upload.id === id ? { ...upload, ...change } : upload)));

  const start = (file) => {
    const id = crypto.randomUUID();
    setUploads((all) => [...all, { id, name: file.name, part: 0 }]);
    uploadImage(file, (part) => update(id, { part })).then(
      (image) => update(id, { image }),
      (failure) => update(id, { error: failure.message }),
    );
  };

  const choose = (event) => {
    [...event.target.files].forEach(start);
    event.target.value = '';
  };

  return (
    <section aria-labelledby="upload">
      <h2 id="upload">Upload</h2>
      <label>
        Images <input type="file" accept="image/*" multiple onChange={choose} />
      </label>
      <ul>
        {uploads.map(({ id, name, part, image, error }) => (
          <li key={id}>
            {name} {!image && !error && <progress value={part} aria-label={name} />}
            {error && <span role="alert">{error}</span>}
            {image && <Image image={image} alt={name} style={{ height: 120, width: 'auto' }} />}
          </li>
        ))}
      </ul>
    </section>
  );
}

export default ImageUploader;
