// Watches the <video> of a page that makes its own, from the moment it is there.
{
  const look = () => {
    const video = document.querySelector('video');
    if (video && !window.videoNotes) window.watchVideo(video);
    if (!window.videoNotes) requestAnimationFrame(look);
  };
  look();
}
