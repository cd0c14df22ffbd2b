import { useState } from 'react';

import { explain } from './explain.js';
import Image from './Image.jsx';

function ImageGenerator() {
  const [prompt, setPrompt] = useState('A beautiful sunset over mountains');
  const [image, setImage] = useState(null);
  const [error, setError] = useState('');
  const [loading, setLoading] = useState(false);

  const generateImage = async (event) => {
    event.preventDefault();
    setLoading(true);
    setError('');
    try {
      const response = await fetch('/api/generate-image', {
        method: 'POST',
        headers: { 'Content-Type': 'application/json' },
        body: JSON.stringify({ prompt }),
        signal: AbortSignal.timeout(150_000),
      });
      const data = await response.json();
      if (data.success) setImage(data);
      else setError(data.message);
    } catch (failure) {
      setError(explain(failure));
    } finally {
      setLoading(false);
    }
  };

  return (
    <section aria-labelledby="generate">
      <h2 id="generate">Generate</h2>
      <form onSubmit={generateImage}>
        <label>
          Prompt <input value={prompt} onChange={(event) => setPrompt(event.target.value)} required />
        </label>{' '}
        <button disabled={loading}>{loading ? 'Generating…' : 'Generate Image'}</button>
      </form>
      {error && <p role="alert">{error}</p>}
      {image && (
        <figure>
          <Image key={image.key} image={image} alt={prompt} />
          <figcaption>
            <a href={image.image_url} target="_blank" rel="noopener noreferrer">
              Open in new tab
            </a>
          </figcaption>
        </figure>
      )}
    </section>
  );
}

export default ImageGenerator;
